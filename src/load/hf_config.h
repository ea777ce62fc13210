// A Hugging Face config.json as a ModelConfig.
#pragma once

#include <string>

#include "core/result.h"
#include "load/model_config.h"

namespace dspark {

// A class of kFamilies (load/family.h) in the older spelling (rope_theta, rope_scaling, torch_dtype) and the
// newer (rope_parameters, dtype). End tokens: generation_config.json beside it if it names any, else the
// config's; plain rope or llama3 scaling. Error: one line with the file, the key and the cure.
Result<ModelConfig> ConfigFromHf(const std::string& dir);

// The chat template of chat_template.jinja or tokenizer_config.json; empty when there is none.
Result<std::string> ChatTemplateFromHf(const std::string& dir);

}  // namespace dspark

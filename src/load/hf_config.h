// A Hugging Face config.json as a ModelConfig.
#pragma once

#include <string>

#include "core/result.h"
#include "load/json_section.h"
#include "load/model_config.h"

namespace dspark {

// A class of kFamilies (load/family.h) in the older spelling (rope_theta, rope_scaling, torch_dtype) and the
// newer (rope_parameters, dtype). End tokens: generation_config.json beside it if it names any, else the
// config's; plain rope or llama3 scaling. Error: one line with the file, the key and the cure.
Result<ModelConfig> ConfigFromHf(const std::string& dir);

// Sizes, norms and rope of a dense decoder, what its config object says in either spelling; not its family
// and its tokens. Refused: biases, windows, activations other than silu, rope other than plain and llama3.
Status ReadDecoderConfig(const JsonSection& config, ModelConfig* c);

// The chat template of chat_template.jinja or tokenizer_config.json; empty when there is none.
Result<std::string> ChatTemplateFromHf(const std::string& dir);

}  // namespace dspark

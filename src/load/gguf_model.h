// A GGUF file as a model: its metadata as a ModelConfig.
#pragma once

#include <string>

#include "core/result.h"
#include "load/gguf.h"
#include "load/model_config.h"

namespace dspark {

// An architecture of kFamilies (load/family.h), keys as llama.cpp's converter writes them. The vocabulary
// size is the embedding's row count. End tokens: eos_token_id, eot_token_id, and the control tokens
// <|im_end|>, <|eot_id|> and Family::gguf_eos where the file has them.
Result<ModelConfig> ConfigFromGguf(const Gguf& gguf);

}  // namespace dspark

// A GGUF file as a model: its metadata as a ModelConfig.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"
#include "load/gguf.h"
#include "load/model_config.h"

namespace dspark {

// An architecture of kFamilies (load/family.h), keys as llama.cpp's converter writes them. The vocabulary
// size is the embedding's row count. End tokens: eos_token_id, eot_token_id, and the control tokens
// <|im_end|>, <|eot_id|> and Family::gguf_eos where the file has them.
Result<ModelConfig> ConfigFromGguf(const Gguf& gguf);

// Sizes, norms and rope of a dense decoder: the keys "A.block_count" and so on, with A = c->architecture; not
// its family, vocabulary and tokens.
Status ReadDecoderKeys(const Gguf& gguf, ModelConfig* c);

// A size: a whole number above 0. `otherwise` stands in for a missing key; without it the key is required.
Result<int> GgufSize(const Gguf& gguf, std::string_view key, std::optional<int> otherwise = {});

// A token id; nothing when the key is missing.
Result<std::optional<int32_t>> GgufTokenId(const Gguf& gguf, std::string_view key);

}  // namespace dspark

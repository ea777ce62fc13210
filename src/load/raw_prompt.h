// A prompt without a chat template, as token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "load/model_config.h"
#include "load/tokenizer.h"

namespace dspark {

// The token that a model's raw prompts begin with; none where it wants none.
inline std::optional<int32_t> PromptBos(const ModelConfig& config) {
  return config.add_bos ? config.bos : std::nullopt;
}

// `parse_special`: as Tokenizer::Encode has it.
inline std::vector<int32_t> EncodeRawPrompt(const Tokenizer& tokenizer, std::optional<int32_t> bos,
                                            std::string_view text, bool parse_special) {
  std::vector<int32_t> ids = tokenizer.Encode(text, parse_special);
  if (bos) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace dspark

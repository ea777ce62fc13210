// Conversations to token ids and the mask of what a drafter is trained on (data_pipeline.md §4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/chat_template.h"
#include "load/tokenizer.h"

namespace dspark {

// Samples with fewer supervised tokens are left out, as DeepSpec does.
inline constexpr int kMinLossTokens = 14;

// How conversations are written out for training.
struct TrainTemplate {
  ChatFormat format = ChatFormat::kChatMl;
  std::string system = {};  // put before a conversation that has no system message; empty: none
};

// `name` is "model", the model's own chat format as it is served, or "qwen", the same with the system prompt
// of DeepSpec's registry; a `system` that is not empty goes before either's. Error: an unknown name, or a
// chat template that we do not render.
Result<TrainTemplate> ChooseTrainTemplate(const std::string& name, const std::string& system,
                                          const std::string& jinja_template);

struct TrainTokens {
  std::vector<int32_t> ids;        // [T]
  std::vector<uint8_t> loss_mask;  // [T], 1: supervised

  int LossTokens() const;
};

// Renders, encodes once and keeps the first `max_length` tokens. Supervised are the answers: what follows
// each assistant header up to and including the end of the turn ("<|im_end|>\n"). A token counts if its first
// byte lies there.
TrainTokens TokenizeForTraining(const Tokenizer& tokenizer, const TrainTemplate& format,
                                const std::vector<ChatMessage>& messages, int max_length);

}  // namespace dspark

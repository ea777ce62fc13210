#include "engine/sequence.h"

#include <algorithm>

namespace dspark {

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

std::string ReplyText::Add(int32_t token, bool* stopped) {
  *stopped = false;
  if (!detokenizer_) return {};
  held_ += detokenizer_->Add(token);
  return Release(stopped);
}

std::string ReplyText::Finish() {
  if (detokenizer_) held_ += detokenizer_->Finish();
  return std::exchange(held_, {});
}

std::string ReplyText::Release(bool* stopped) {
  size_t end = std::string::npos;
  for (const std::string& stop : stop_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    *stopped = true;
    held_.resize(end);
    return std::exchange(held_, {});
  }
  // Hold back the longest tail that a stop string could still complete.
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t n = std::min(held_.size(), stop.size() - 1); n > keep; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
    }
  }
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return text;
}

Sequence::Sequence(SequenceId sequence_id, Request r, BlockPool& pool, const Tokenizer* tokenizer, int vocab)
    : id(sequence_id),
      request(std::move(r)),
      tokens(request.prompt),
      kv(pool),
      text(tokenizer, request.stop),
      sampler(request, request.sampling.NeedsHistory() ? &history.emplace(vocab) : nullptr,
              (constraint = request.constraint ? request.constraint->Clone() : nullptr).get()) {
  tokens.reserve(request.prompt.size() + request.max_tokens);
  stats.prompt_tokens = int(request.prompt.size());
  for (int32_t token : request.prompt) {
    if (history) history->AddPrompt(token);
  }
}

}  // namespace dspark

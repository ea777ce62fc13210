// Conversations run through an engine: each user turn is answered, and the answer becomes history.
#pragma once

#include <span>
#include <vector>

#include "engine/engine.h"
#include "eval/acceptance.h"
#include "eval/calibration.h"
#include "eval/suites.h"
#include "load/chat_template.h"
#include "load/model_files.h"

namespace dspark {

struct RolloutOptions {
  SamplingParams sampling{.temperature = 0};
  int max_tokens = 256;    // of one answer
  uint64_t seed = 980406;  // of prompt i: seed + i, as DeepSpec seeds
};

struct Rollout {
  std::vector<std::vector<int32_t>> answers;  // [turn] tokens; fewer than the prompt's turns where cut
  bool cut = false;                           // a turn did not fit into the context any more
};

// Some conversations run together, and how fast that was.
struct GroupRun {
  std::vector<Rollout> rollouts;
  int64_t tokens = 0;  // beyond the first of each answer
  double ms = 0;       // of the steps that gave them
};

// Turns conversations into prompts: the model's template, no thoughts, no system prompt but the
// conversation's own (drafters.md §9).
class ChatEncoder {
 public:
  // `files` outlives it. Error: no tokenizer, or a template we do not know.
  static Result<ChatEncoder> Make(const ModelFiles& files);
  std::vector<int32_t> Encode(const std::vector<ChatMessage>& messages) const;

 private:
  ChatEncoder(const Tokenizer& tokenizer, ChatFormat format) : tokenizer_(&tokenizer), format_(format) {}
  const Tokenizer* tokenizer_;
  ChatFormat format_;
};

// Runs `prompts` at once, to their ends. The first one's index in its suite is `first`. `engine` has the
// tokenizer of `encoder` and `context` positions for each sequence. Error: the model gave no distribution.
Result<GroupRun> RunGroup(Engine& engine, const ChatEncoder& encoder, int context,
                          std::span<const EvalPrompt> prompts, size_t first, const RolloutOptions& options);

// Adds up the rounds of an engine's sequences.
class RoundLog : public RoundObserver {
 public:
  // `temperatures` are those the drafter divides its logits by (empty: none). Beside a drafter's `own` drafts
  // there may be others that cost nothing.
  explicit RoundLog(std::vector<float> temperatures = {}, DraftOrigin own = DraftOrigin::kModel)
      : temperatures_(std::move(temperatures)), own_(own) {}
  void OnRound(const RoundRecord& round) override;

  const AcceptanceStats& acceptance() const { return acceptance_; }
  // Of these, rounds whose drafts prompt lookup copied or another source beside the drafter made.
  const AcceptanceStats& looked_up() const { return looked_up_; }
  // Rounds that drafted with a confidence of the drafter's own. Logits are as before any temperature,
  // recovered from the fp32 confidences: at most 16 in size, and good to a part in 10⁶ near 0 and in 10³
  // at 10.
  const std::vector<ConfidenceRound>& confidence() const { return confidence_; }
  // All other rounds.
  const AcceptanceStats& without_confidence() const { return without_confidence_; }

 private:
  std::vector<float> temperatures_;
  DraftOrigin own_;
  AcceptanceStats acceptance_, looked_up_, without_confidence_;
  std::vector<ConfidenceRound> confidence_;
};

}  // namespace dspark

// What a server's load came to, step by step and reply by reply: what metrics and charts are made of.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace dspark {

// Sums over the rounds of one step.
struct RoundCounts {
  int rounds = 0;
  int drafts = 0;  // rounds that verified at least one draft
  int drafted = 0, accepted = 0, committed = 0;
  std::vector<int> by_length;    // [n]: rounds that verified n drafts
  std::vector<int> accepted_at;  // [k]: rounds that kept draft k + 1
};

struct StepRecord {
  double end_ms = 0;             // NowMs
  double ms = 0;                 // the step
  Engine::StepCost cost{};       // what it was spent on
  int running = 0, waiting = 0;  // sequences behind the step
  double kv_usage = 0;           // share of the KV pool's blocks, 0 … 1
  int64_t preemptions = 0;       // since the start
  int prompt_tokens = 0;         // of prompts whose reading ended
  int tokens = 0;                // committed
  RoundCounts counts{};
  std::span<const CostTable::Point> costs{};  // as they are now; valid during the call
};

// One sequence's end.
struct EndRecord {
  FinishReason finish = FinishReason::kNone;
  double first_token_ms = 0;             // from Submit; 0: there was none
  double total_ms = 0;                   // from Submit
  const SequenceStats* stats = nullptr;  // valid during the call
};

class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  // On the engine's thread, between steps: be short.
  virtual void OnStep(const StepRecord& step) = 0;
  virtual void OnEnd(const EndRecord& end) = 0;
};

// Adds up the rounds of a step: the engine's observer.
class RoundTally : public RoundObserver {
 public:
  void OnRound(const RoundRecord& round) override;
  // What was added since the last call.
  RoundCounts Take() { return std::exchange(counts_, {}); }

 private:
  RoundCounts counts_;
};

}  // namespace dspark

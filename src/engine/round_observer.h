// What every round came to, for statistics.
#pragma once

#include <span>

#include "engine/request.h"

namespace dspark {

// One pass of one sequence after its prompt's last.
struct RoundRecord {
  SequenceId sequence = 0;
  // Drafts verified. Where a kept draft ends the reply, those up to it: what lies behind had no say
  // (drafters.md §8).
  int drafted = 0;
  int accepted = 0;   // drafts kept
  int committed = 0;  // tokens of the reply that came out of the round
  DraftOrigin origin = DraftOrigin::kModel;
  int match_length = 0;               // as Proposal's: 0 where no prompt lookup drafted
  std::span<const float> confidence;  // of all drafts that were proposed, verified or not; or empty
};

class RoundObserver {
 public:
  virtual ~RoundObserver() = default;
  // On the engine's thread, while the step is under way: be short. The span is valid during the call.
  virtual void OnRound(const RoundRecord& round) = 0;
};

}  // namespace dspark

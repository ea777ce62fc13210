#include "engine/budget.h"

#include <algorithm>

namespace dspark {

void Budget::Choose(const CostTable& costs, const StepShape& step, std::span<VerifyCandidate> candidates) {
  order_.clear();
  for (size_t r = 0; r < candidates.size(); ++r) {
    candidates[r].length = 0;
    float cumulative = 1;
    for (float c : candidates[r].conditional) {
      cumulative *= c;
      if (cumulative > 0) order_.push_back({cumulative, int(r)});
    }
  }
  // Stable: equal entries keep the order of positions within a sequence.
  std::stable_sort(order_.begin(), order_.end(),
                   [](const Entry& a, const Entry& b) { return a.cumulative > b.cumulative; });

  double expected = double(candidates.size());
  double best = kGainMargin * expected / costs.Ms(step.base_rows);
  int admitted = 0;
  for (int n = 0; n < std::min(step.room, int(order_.size())); ++n) {
    expected += order_[n].cumulative;
    const double rate = expected / (step.draft_ms + costs.Ms(step.base_rows + n + 1));
    if (rate > best) {
      best = rate;
      admitted = n + 1;
    } else if (step.stop_at_first_decline) {
      break;
    }
  }
  for (int n = 0; n < admitted; ++n) ++candidates[order_[n].sequence].length;
}

}  // namespace dspark

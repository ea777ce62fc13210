#include "engine/budget.h"

#include <algorithm>

namespace dspark {

void Budget::Sort(std::span<VerifyCandidate> candidates) {
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
}

void Budget::Admit(int drafts, std::span<VerifyCandidate> candidates) {
  for (int n = 0; n < drafts; ++n) ++candidates[size_t(order_[size_t(n)].sequence)].length;
}

double Budget::Choose(const CostTable& costs, const StepShape& step, std::span<VerifyCandidate> candidates) {
  Sort(candidates);
  double expected = double(candidates.size()), depth_ms = step.depth_ms - step.prompt_ms;
  double best = kGainMargin * expected / (costs.Ms(step.base_rows) + depth_ms);
  int admitted = 0;
  for (int n = 0; n < std::min(step.room, int(order_.size())); ++n) {
    expected += order_[size_t(n)].cumulative;
    depth_ms += candidates[size_t(order_[size_t(n)].sequence)].row_ms;
    const double rate = expected / (step.draft_ms + costs.Ms(step.base_rows + n + 1) + depth_ms);
    if (rate > best) {
      best = rate;
      admitted = n + 1;
    } else if (step.stop_at_first_decline) {
      break;
    }
  }
  Admit(admitted, candidates);
  return best;
}

void Budget::Fill(int capacity, const StepShape& step, std::span<VerifyCandidate> candidates) {
  Sort(candidates);
  Admit(std::min({capacity, step.room, int(order_.size())}), candidates);
}

}  // namespace dspark

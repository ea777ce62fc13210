#include "engine/draft_plan.h"

#include <algorithm>

namespace dspark {

double DraftCost::Ms(int sequences) const {
  const int known = int(ms_.size()) - 1;
  for (int below = std::min(sequences, known); below > 0; --below) {
    if (ms_[below] > 0) return ms_[below] * (1 + kMarginal * double(sequences - below) / below);
  }
  for (int above = sequences + 1; above <= known; ++above) {
    if (ms_[above] > 0) return ms_[above];
  }
  return 0;
}

void DraftCost::Observe(int sequences, double ms) {
  if (sequences >= int(ms_.size())) ms_.resize(sequences + 1);
  double& level = ms_[sequences];
  if (level == 0) {
    level = ms;
  } else if (ms < level) {
    level += 0.3 * (ms - level);
  } else {
    level += 0.02 * (std::min(ms, 2 * level) - level);
  }
}

}  // namespace dspark

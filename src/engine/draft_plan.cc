#include "engine/draft_plan.h"

#include <algorithm>

namespace dspark {

double DraftCost::Ms(int sequences) const {
  const int last = int(levels_.size()) - 1;
  for (int below = std::min(sequences, last); below > 0; --below) {
    if (!levels_[below].known()) continue;
    return levels_[below].ms * (1 + kMarginal * double(sequences - below) / below);
  }
  for (int above = sequences + 1; above <= last; ++above) {
    if (levels_[above].known()) return levels_[above].ms;
  }
  return 0;
}

void DraftCost::Observe(int sequences, double ms) {
  if (sequences >= int(levels_.size())) levels_.resize(sequences + 1);
  Level& level = levels_[sequences];
  if (level.seen++ == 0 || ms < level.ms) {
    level.ms = ms;
  } else {
    level.ms += 0.02 * (std::min(ms, 2 * level.ms) - level.ms);
  }
}

}  // namespace dspark

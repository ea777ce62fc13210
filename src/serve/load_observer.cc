#include "serve/load_observer.h"

#include <algorithm>

namespace dspark {

void RoundTally::OnRound(const RoundRecord& round) {
  ++counts_.rounds;
  counts_.drafts += round.drafted > 0;
  counts_.drafted += round.drafted;
  counts_.accepted += round.accepted;
  counts_.committed += round.committed;
  counts_.by_length.resize(std::max(counts_.by_length.size(), size_t(round.drafted) + 1));
  ++counts_.by_length[size_t(round.drafted)];
  counts_.accepted_at.resize(std::max(counts_.accepted_at.size(), size_t(round.accepted)));
  for (int k = 0; k < round.accepted; ++k) ++counts_.accepted_at[size_t(k)];
}

}  // namespace dspark

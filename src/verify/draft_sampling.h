// q of one draft: a drafter's candidates under the request's own settings. Knows no drafter.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/isa.h"
#include "verify/sampling.h"

namespace dspark {

// As ServedDistribution, over few candidates: bias and penalties, temperature, top-k, top-p, min-p, so that a
// draft is drawn the way the target's tokens are. Kept between calls: it allocates nothing once warm.
class CandidateDistribution {
 public:
  // `ids` distinct, `logits` beside them and overwritten. `history` may be null unless params.NeedsHistory().
  // The result's ids are ascending; it stays valid until the next call. Logits of which none is finite give
  // the first candidate.
  const Distribution& Make(Isa isa, std::span<const int32_t> ids, std::span<float> logits,
                           const SamplingParams& params, const TokenHistory* history);

 private:
  SamplingParams truncation_;  // of the last request: temperature, top-k, top-p and min-p only
  Distribution by_index_, by_id_;
  std::vector<int32_t> order_;
};

}  // namespace dspark

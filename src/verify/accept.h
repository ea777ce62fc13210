// Accept rules: how many drafts are kept and which token follows them, so that the text has exactly the target's
// distribution whatever the drafter did. Knows no model and no drafter: p and q in, a decision out.
#pragma once

#include <cstdint>
#include <span>

#include "verify/sampling.h"

namespace dspark {

// q of one draft: empty ids mean one-hot at the draft token.
struct DraftDistribution {
  std::span<const int32_t> ids;   // ascending
  std::span<const float> probs;
};

struct AcceptInput {
  std::span<const int32_t> drafts;              // x_1 … x_n
  std::span<const DraftDistribution> q;         // n, or empty when all are one-hot
  std::span<const Distribution> p;              // n + 1 rows: p[k] is the served distribution after x_1 … x_k
  uint64_t seed = 0;
  uint64_t position = 0;                        // absolute position of x_1
};

struct AcceptResult {
  int accepted = 0;    // drafts kept: x_1 … x_accepted
  int32_t next = 0;    // the correction (accepted < n) or bonus token (accepted == n)
};

// Token-wise rejection sampling (Leviathan et al. 2023, Chen et al. 2023): accept x_k when u_k < p(x_k) / q(x_k), else draw from
// the normalised residual max(p - q, 0). Greedy is the special case of one-hot p. n = 0 is plain sampling.
// Randomness: u_k from (seed, position + k - 1, kAccept); the extra token from (seed, its position, kResidual or kBonus).
AcceptResult AcceptByRejection(const AcceptInput& input);

// A draft is kept iff it equals the token that plain decoding would have drawn from p at that position with the same
// randomness (seed, position, kBonus). For one-hot q this accepts with the same probability as rejection, and the reply is
// token for token the plain reply: the rule for sources whose q is one-hot.
AcceptResult AcceptByMatch(const AcceptInput& input);

}  // namespace dspark

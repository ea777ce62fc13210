// Accept rules: how many drafts are kept and which token follows them, so that the text has exactly the
// target's distribution whatever the drafter did. Knows no model and no drafter: p and q in, a decision out.
#pragma once

#include <cstdint>
#include <span>

#include "core/function_ref.h"
#include "verify/sampling.h"

namespace dspark {

// q of one draft: empty ids mean one-hot at the draft token.
struct DraftDistribution {
  std::span<const int32_t> ids;  // ascending
  std::span<const float> probs;  // sum to 1
};

struct AcceptInput {
  std::span<const int32_t> drafts;  // x_1 … x_n
  std::span<const DraftDistribution>
      q;  // n: the very distribution each draft was drawn from; empty: all one-hot
  uint64_t seed = 0;
  uint64_t position = 0;  // absolute position of x_1
};

// The served distribution p(· | x_1 … x_k). A rule asks for k = 0, 1, … in order, each once, and stops after
// the row that gives the extra token: rows behind the first rejection need never be computed. The reference
// stays valid until the next call only.
using TargetRow = FunctionRef<const Distribution&(int k)>;

struct AcceptResult {
  int accepted = 0;  // drafts kept: x_1 … x_accepted
  int examined = 0;  // drafts whose test ran: accepted, plus the rejected one if there is one
  int32_t next = 0;  // the correction (accepted < n) or bonus token (accepted == n), at position + accepted
};

// Token-wise rejection sampling (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023,
// arXiv:2302.01318): accept x_k when u_k < p(x_k) / q(x_k), else draw from the normalised residual max(p - q,
// 0). Greedy is the special case of one-hot p. n = 0 is plain sampling. Randomness: u_k from (seed, position
// + k - 1, kAccept); the extra token from (seed, its position, kResidual or kBonus).
AcceptResult AcceptByRejection(const AcceptInput& input, TargetRow p);

// A draft is kept iff it equals the token that plain decoding would have drawn from p at that position with
// the same randomness (seed, position, kBonus). For one-hot q this accepts with the same probability as
// rejection, and the reply is token for token the plain reply: the rule for sources whose q is one-hot. q is
// not read.
AcceptResult AcceptByMatch(const AcceptInput& input, TargetRow p);

// Block verification (Sun et al. 2025, arXiv:2403.10444): judges prefixes of the block as a whole, which
// keeps at least as many drafts as token-wise rejection, in expectation, for any p and q. Exact for any q,
// and for a block whose length was chosen while it was drafted, from what was known before each next draft.
// Asks for rows until no longer prefix can be kept. Randomness: the test of the prefix x_1 … x_k from (seed,
// position + k - 1, kAccept, index k); the extra token as in AcceptByRejection. What lies behind the prefix
// that is kept has had its say, so the next round must not meet its numbers again: rounds begin at growing
// positions, and a position is met with a smaller index each time. Drafts have to be drawn the same way:
// index k - 1 for x_k.
AcceptResult AcceptByBlock(const AcceptInput& input, TargetRow p);

// The steps of the rejection rule, each a function of its u in [0, 1).

// u < p / q without the division: p / q may overflow, u * q may not. q > 0.
inline bool KeepsDraft(double u, float p, float q) { return u * double(q) < double(p); }

// Draws from max(p - q, 0) over p's ids in order, normalised; `draft` is where an empty q has its one. If
// rounding left no residual at all (p = q within 1e-7, so a rejection is itself that improbable), draws from
// p. `weight` in (0, 1] scales p: the residual of block verification, max(weight * p - q, 0).
int32_t SampleResidual(const Distribution& p, const DraftDistribution& q, int32_t draft, double u,
                       double weight = 1);

}  // namespace dspark

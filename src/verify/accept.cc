#include "verify/accept.h"

#include <algorithm>

#include "core/check.h"
#include "core/rng.h"

namespace dspark {
namespace {

float DraftProbability(const DraftDistribution& q, int32_t draft) {
  if (q.ids.empty()) return 1;
  const auto at = std::lower_bound(q.ids.begin(), q.ids.end(), draft);
  return at != q.ids.end() && *at == draft ? q.probs[size_t(at - q.ids.begin())] : 0;
}

// Calls visit(id, max(weight * p - q, 0)) in id order until it returns true.
template <class Visit>
void ForEachResidual(const Distribution& p, const DraftDistribution& q_row, double weight, Visit visit) {
  const auto& [q_ids, q_probs] = q_row;
  size_t j = 0;
  for (size_t i = 0; i < p.ids.size(); ++i) {
    while (j < q_ids.size() && q_ids[j] < p.ids[i]) ++j;
    const float q = j < q_ids.size() && q_ids[j] == p.ids[i] ? q_probs[j] : 0;
    if (visit(p.ids[i], std::max(weight * double(p.probs[i]) - double(q), 0.0))) return;
  }
}

constexpr float kOne = 1;

// q with a one-hot written out; `draft` outlives it.
DraftDistribution Explicit(const DraftDistribution& q, const int32_t& draft) {
  return q.ids.empty() ? DraftDistribution{std::span(&draft, 1), std::span(&kOne, 1)} : q;
}

double ResidualMass(const Distribution& p, const DraftDistribution& q, double weight) {
  double total = 0;
  ForEachResidual(p, q, weight, [&](int32_t, double mass) {
    total += mass;
    return false;
  });
  return total;
}

}  // namespace

int32_t SampleResidual(const Distribution& p, const DraftDistribution& q, int32_t draft, double u,
                       double weight) {
  const DraftDistribution row = Explicit(q, draft);
  const double total = ResidualMass(p, row, weight);
  if (!(total > 0)) return p.Sample(u);

  int32_t chosen = 0;  // the last possible token, should rounding keep the sum below u * total
  double below = 0;
  ForEachResidual(p, row, weight, [&](int32_t id, double mass) {
    if (mass > 0) chosen = id;
    below += mass;
    return below > u * total;
  });
  return chosen;
}

AcceptResult AcceptByRejection(const AcceptInput& input, TargetRow p) {
  const int n = int(input.drafts.size());
  DSPARK_CHECK(input.q.empty() || int(input.q.size()) == n);
  for (int k = 0; k < n; ++k) {
    const uint64_t position = input.position + uint64_t(k);
    const int32_t draft = input.drafts[size_t(k)];
    const DraftDistribution q = input.q.empty() ? DraftDistribution{} : input.q[size_t(k)];
    const float q_draft = DraftProbability(q, draft);
    DSPARK_CHECK(q_draft > 0);  // a draft was drawn from its q
    const Distribution& row = p(k);
    if (!KeepsDraft(UniformDouble(input.seed, position, Purpose::kAccept), row.ProbabilityOf(draft),
                    q_draft)) {
      const double u = UniformDouble(input.seed, position, Purpose::kResidual);
      return {.accepted = k, .examined = k + 1, .next = SampleResidual(row, q, draft, u)};
    }
  }
  const double u = UniformDouble(input.seed, input.position + uint64_t(n), Purpose::kBonus);
  return {.accepted = n, .examined = n, .next = p(n).Sample(u)};
}

// Algorithm 2 of the paper, walked once from left to right. `weight` is its p_i: the share of the prefix's
// draft probability that the target can claim. Of the prefixes whose test passes the longest is kept, so
// every pass draws the token that would follow it.
AcceptResult AcceptByBlock(const AcceptInput& input, TargetRow p) {
  const int n = int(input.drafts.size());
  DSPARK_CHECK(input.q.empty() || int(input.q.size()) == n);
  AcceptResult result;
  double weight = 1;
  for (int k = 0; k <= n; ++k) {
    const uint64_t position = input.position + uint64_t(k);
    const Distribution& row = p(k);
    const bool last = k == n;
    const DraftDistribution q = last || input.q.empty() ? DraftDistribution{} : input.q[size_t(k)];
    double keep = weight;  // the last prefix's; the others' is lower where longer ones may still be kept
    if (!last) {
      const double mass = ResidualMass(row, Explicit(q, input.drafts[size_t(k)]), weight);
      keep = mass > 0 ? mass / (mass + 1 - weight) : weight < 1 ? 0 : 1;
    }
    result.examined = k;
    // Tests behind the prefix that is kept have had their say, and the next round comes to their positions
    // again: the index in the block makes its numbers new.
    if (k == 0 || UniformDouble(input.seed, position - 1, Purpose::kAccept, uint32_t(k)) < keep) {
      result.accepted = k;
      result.next = last ? row.Sample(UniformDouble(input.seed, position, Purpose::kBonus))
                         : SampleResidual(row, q, input.drafts[size_t(k)],
                                          UniformDouble(input.seed, position, Purpose::kResidual), weight);
    }
    if (last) break;
    const float q_draft = DraftProbability(q, input.drafts[size_t(k)]);
    DSPARK_CHECK(q_draft > 0);  // a draft was drawn from its q
    weight = std::min(1.0, weight * double(row.ProbabilityOf(input.drafts[size_t(k)])) / double(q_draft));
    if (weight == 0) {
      result.examined = k + 1;
      break;
    }
  }
  return result;
}

AcceptResult AcceptByMatch(const AcceptInput& input, TargetRow p) {
  const int n = int(input.drafts.size());
  for (int k = 0; k < n; ++k) {
    const int32_t plain =
        p(k).Sample(UniformDouble(input.seed, input.position + uint64_t(k), Purpose::kBonus));
    if (plain != input.drafts[size_t(k)]) return {.accepted = k, .examined = k + 1, .next = plain};
  }
  const double u = UniformDouble(input.seed, input.position + uint64_t(n), Purpose::kBonus);
  return {.accepted = n, .examined = n, .next = p(n).Sample(u)};
}

}  // namespace dspark

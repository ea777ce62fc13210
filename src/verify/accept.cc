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

// Calls visit(id, max(p - q, 0)) in id order until it returns true.
template <class Visit>
void ForEachResidual(const Distribution& p, std::span<const int32_t> q_ids, std::span<const float> q_probs,
                     Visit visit) {
  size_t j = 0;
  for (size_t i = 0; i < p.ids.size(); ++i) {
    while (j < q_ids.size() && q_ids[j] < p.ids[i]) ++j;
    const float q = j < q_ids.size() && q_ids[j] == p.ids[i] ? q_probs[j] : 0;
    if (visit(p.ids[i], std::max(double(p.probs[i]) - double(q), 0.0))) return;
  }
}

}  // namespace

int32_t SampleResidual(const Distribution& p, const DraftDistribution& q, int32_t draft, double u) {
  const float one = 1;
  const bool one_hot = q.ids.empty();
  const std::span<const int32_t> ids = one_hot ? std::span(&draft, 1) : q.ids;
  const std::span<const float> probs = one_hot ? std::span(&one, 1) : q.probs;

  double total = 0;
  ForEachResidual(p, ids, probs, [&](int32_t, double mass) {
    total += mass;
    return false;
  });
  if (!(total > 0)) return p.Sample(u);

  int32_t chosen = 0;  // the last possible token, should rounding keep the sum below u * total
  double below = 0;
  ForEachResidual(p, ids, probs, [&](int32_t id, double mass) {
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

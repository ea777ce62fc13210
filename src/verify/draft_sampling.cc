#include "verify/draft_sampling.h"

#include <algorithm>

#include "core/check.h"

namespace dspark {
namespace {

void ApplyBiasAndPenalties(std::span<const int32_t> ids, std::span<float> logits,
                           const SamplingParams& params, const TokenHistory* history) {
  for (const auto& [token, bias] : params.logit_bias) {
    const auto at = std::find(ids.begin(), ids.end(), token);
    if (at != ids.end()) logits[size_t(at - ids.begin())] += bias;
  }
  if (!params.NeedsHistory()) return;
  DSPARK_CHECK(history != nullptr);
  for (size_t i = 0; i < ids.size(); ++i) logits[i] = Penalised(logits[i], ids[i], params, *history);
}

}  // namespace

const Distribution& CandidateDistribution::Make(Isa isa, std::span<const int32_t> ids,
                                                std::span<float> logits, const SamplingParams& params,
                                                const TokenHistory* history) {
  DSPARK_CHECK(!ids.empty() && ids.size() == logits.size());
  ApplyBiasAndPenalties(ids, logits, params, history);
  truncation_.temperature = params.temperature;
  truncation_.top_k = params.top_k;
  truncation_.top_p = params.top_p;
  truncation_.min_p = params.min_p;
  ServedDistribution(isa, logits, truncation_, nullptr, &by_index_);

  const size_t n = by_index_.ids.size();
  order_.resize(n);
  for (size_t i = 0; i < n; ++i) order_[i] = int32_t(i);
  const auto id = [&](int32_t i) { return ids[size_t(by_index_.ids[size_t(i)])]; };
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) { return id(a) < id(b); });
  by_id_.ids.resize(n);
  by_id_.probs.resize(n);
  for (size_t i = 0; i < n; ++i) {
    by_id_.ids[i] = id(order_[i]);
    by_id_.probs[i] = by_index_.probs[size_t(order_[i])];
  }
  return by_id_;
}

}  // namespace dspark

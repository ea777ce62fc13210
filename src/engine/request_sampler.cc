#include "engine/request_sampler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/rng.h"

namespace dspark {
namespace {

SamplingParams AtTemperatureZero(SamplingParams params) {
  params.temperature = 0;
  return params;
}

}  // namespace

RequestSampler::RequestSampler(const Request& request, TokenHistory* history, Constraint* constraint)
    : request_(request),
      history_(history),
      constraint_(constraint),
      greedy_(AtTemperatureZero(request.sampling)) {
  // More than a few would crowd out what the drafter itself finds likely.
  constexpr size_t kMostRaised = 16;
  std::vector<std::pair<float, int32_t>> raised;
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    if (bias > 0) raised.push_back({-bias, token});
  }
  std::sort(raised.begin(), raised.end());
  raised.resize(std::min(raised.size(), kMostRaised));
  for (const auto& [bias, token] : raised) raised_.push_back(token);
}

int32_t RequestSampler::Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) {
  // What may not come next is no candidate. Where that is all of them they stay: the draft is as good as any
  // other, and will be refused.
  const auto allowed = [&](int32_t id) { return constraint_->Allows(id); };
  const bool filter = constraint_ && std::ranges::any_of(ids, allowed);
  for (size_t i = 0; filter && i < ids.size(); ++i) {
    if (!allowed(ids[i])) logits[i] = -std::numeric_limits<float>::infinity();
  }
  const Distribution& q = q_.Make(isa_, ids, logits, greedy() ? greedy_ : request_.sampling, history_);
  int32_t token = q.ids[0];
  if (greedy()) {
    proposal->tokens.push_back(token);
  } else {
    const uint64_t position = position_ + uint64_t(proposal->size());
    // The round is part of the key (core/rng.h): draft k of a round and draft j of a later one share a
    // position only with j < k.
    token = q.Sample(UniformDouble(request_.seed, position, Purpose::kDraft, uint32_t(proposal->size())));
    proposal->Add(token, {q.ids, q.probs});
  }
  if (history_) history_->Push(token);
  if (constraint_) constraint_->Push(token);
  pushed_.push_back(token);
  return token;
}

void RequestSampler::End() {
  for (const int32_t token : pushed_) {
    if (history_) history_->Pop(token);
    if (constraint_) constraint_->Pop();
  }
  pushed_.clear();
}

}  // namespace dspark

#include "engine/request_sampler.h"

#include "core/rng.h"

namespace dspark {

int32_t RequestSampler::Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) {
  const Distribution& q = q_.Make(isa_, ids, logits, request_.sampling, history_);
  int32_t token = q.ids[0];
  if (request_.sampling.Greedy()) {
    proposal->tokens.push_back(token);
  } else {
    const uint64_t position = position_ + uint64_t(proposal->size());
    // The round is part of the key (core/rng.h): draft k of a round and draft j of a later one share a
    // position only with j < k.
    token = q.Sample(UniformDouble(request_.seed, position, Purpose::kDraft, uint32_t(proposal->size())));
    proposal->Add(token, {q.ids, q.probs});
  }
  if (history_) {
    history_->Push(token);
    pushed_.push_back(token);
  }
  return token;
}

void RequestSampler::End() {
  for (const int32_t token : pushed_) history_->Pop(token);
  pushed_.clear();
}

}  // namespace dspark

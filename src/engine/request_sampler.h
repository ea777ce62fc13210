// Draws drafts for one request: its own settings, its own random numbers (core/rng.h, Purpose::kDraft).
#pragma once

#include "draft/drafter.h"
#include "engine/request.h"
#include "verify/draft_sampling.h"

namespace dspark {

class RequestSampler : public DraftSampler {
 public:
  // `request` outlives the sampler. `history` may be null unless the request's penalties need it.
  RequestSampler(const Request& request, TokenHistory* history);

  // Whether drafts of this request are something else than the drafter's own argmax.
  bool Needed() const {
    const SamplingParams& params = request_.sampling;
    return !params.Greedy() || params.NeedsHistory() || !params.logit_bias.empty();
  }
  // Before a proposal whose first draft would be the token at `position`.
  void Begin(Isa isa, uint64_t position) { isa_ = isa, position_ = position; }
  // Penalties see the drafts before; a greedy request's draft is the argmax, and one-hot.
  int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) override;
  bool greedy() const override { return request_.sampling.Greedy(); }
  std::span<const int32_t> raised() const override { return raised_; }
  // After the proposal: its drafts are no history yet.
  void End();

 private:
  const Request& request_;
  TokenHistory* history_;
  Isa isa_ = Isa::kReference;
  uint64_t position_ = 0;
  std::vector<int32_t> raised_;  // biased upwards, the most first
  std::vector<int32_t> pushed_;  // to the history, by the present proposal
  CandidateDistribution q_;
};

}  // namespace dspark

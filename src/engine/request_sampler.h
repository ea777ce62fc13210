// Draws drafts for one request: its own settings, its own random numbers (core/rng.h, Purpose::kDraft).
#pragma once

#include "draft/drafter.h"
#include "engine/request.h"
#include "verify/draft_sampling.h"

namespace dspark {

class RequestSampler : public DraftSampler {
 public:
  // `request` outlives the sampler. `history` may be null unless the request's penalties need it, as
  // `constraint` where it has none.
  RequestSampler(const Request& request, TokenHistory* history, Constraint* constraint = nullptr);

  // Whether drafts of this request are something else than the drafter's own argmax.
  bool Needed() const {
    const SamplingParams& params = request_.sampling;
    const bool drawn = !params.Greedy() && !request_.reproducible;
    return drawn || params.NeedsHistory() || !params.logit_bias.empty() || constraint_;
  }
  // Before a proposal whose first draft would be the token at `position`.
  void Begin(Isa isa, uint64_t position) { isa_ = isa, position_ = position; }
  // Penalties and constraint see the drafts before; a greedy request's draft is the argmax, and one-hot.
  int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) override;
  bool greedy() const override { return request_.sampling.Greedy() || request_.reproducible; }
  std::span<const int32_t> raised() const override { return raised_; }
  // After the proposal: its drafts are no history yet.
  void End();

 private:
  const Request& request_;
  TokenHistory* history_;
  Constraint* constraint_;
  const SamplingParams greedy_;  // the request's, at temperature 0
  Isa isa_ = Isa::kReference;
  uint64_t position_ = 0;
  std::vector<int32_t> raised_;  // biased upwards, the most first
  std::vector<int32_t> pushed_;  // to history and constraint, by the present proposal
  CandidateDistribution q_;
};

}  // namespace dspark

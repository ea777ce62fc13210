#include "engine/request_sampler.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dspark {
namespace {

// Three drafts among the same candidates, each less likely once it is drafted.
TEST(RequestSampler, DraftsSeeThePenaltiesOfThoseBefore) {
  const std::vector<int32_t> ids = {4, 9};
  for (const float temperature : {0.0f, 1.0f}) {
    Request request;
    request.sampling = {.temperature = temperature, .frequency_penalty = 2};
    TokenHistory history(10);
    RequestSampler sampler(request, &history);
    sampler.Begin(Isa::kReference, 5);
    Proposal proposal;
    int seen[2] = {};
    for (int k = 0; k < 3; ++k) {
      std::vector<float> logits = {1, 0};
      const int32_t token = sampler.Draw(ids, logits, &proposal);
      EXPECT_EQ(token, proposal.tokens.back());
      const float gap = 1 - 2 * float(seen[0] - seen[1]);  // of the two penalised logits
      if (request.sampling.Greedy()) {
        EXPECT_EQ(token, gap > 0 ? 4 : 9) << "draft " << k;
      } else {
        EXPECT_NEAR(proposal.Q(k).probs[0], 1 / (1 + std::exp(-gap)), 1e-6) << "draft " << k;
      }
      ++seen[token == 9];
    }
    sampler.End();
    for (const int32_t token : ids) EXPECT_EQ(history.Seen(token), 0) << "a draft is no history yet";
  }
}

}  // namespace
}  // namespace dspark

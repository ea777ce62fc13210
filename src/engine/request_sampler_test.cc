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

// Allows one token, over and over.
class Only : public Constraint {
 public:
  explicit Only(int32_t token) : token_(token) {}
  std::unique_ptr<Constraint> Clone() const override { return std::make_unique<Only>(*this); }
  bool Allows(int32_t token) override { return token == token_; }
  void Mask(std::span<float>) override {}
  void Push(int32_t) override { ++pushed; }
  void Pop() override { --pushed; }
  bool Complete() override { return false; }
  int pushed = 0;

 private:
  const int32_t token_;
};

// Where all candidates are forbidden, a draft is drawn among them as if none were.
TEST(RequestSampler, DraftsAreWhatTheConstraintAllows) {
  const std::vector<int32_t> ids = {4, 9};
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int32_t allowed : {4, 9, 7}) {
      Request request;
      request.sampling.temperature = temperature;
      Only constraint(allowed);
      RequestSampler sampler(request, nullptr, &constraint);
      sampler.Begin(Isa::kReference, 5);
      Proposal proposal;
      for (int k = 0; k < 3; ++k) {
        std::vector<float> logits = {1, 0};
        const int32_t token = sampler.Draw(ids, logits, &proposal);
        EXPECT_TRUE(allowed == 7 ? token == 4 || token == 9 : token == allowed);
        if (temperature == 0) continue;
        EXPECT_EQ(proposal.Q(k).ids.size(), allowed == 7 ? 2u : 1u);
        EXPECT_GT(proposal.Q(k).probs[0], 0);
      }
      EXPECT_EQ(constraint.pushed, 3);
      sampler.End();
      EXPECT_EQ(constraint.pushed, 0);
    }
  }
}

}  // namespace
}  // namespace dspark

#include "verify/draft_sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace dspark {
namespace {

constexpr Isa kIsa = Isa::kReference;

std::vector<SamplingParams> Settings() {
  return {{},
          {.temperature = 0},
          {.temperature = 0.6f},
          {.temperature = 0.8f, .top_k = 7},
          {.top_p = 0.7f},
          {.temperature = 1.3f, .min_p = 0.1f},
          {.temperature = 0.9f,
           .top_k = 20,
           .top_p = 0.9f,
           .repetition_penalty = 1.3f,
           .presence_penalty = 0.4f,
           .frequency_penalty = 0.3f,
           .logit_bias = {{3, 2.5f}, {11, -4}}}};
}

// All tokens as candidates, in any order, give what the target would serve from the same logits.
TEST(CandidateDistribution, OfTheWholeVocabularyIsTheServedDistribution) {
  constexpr int kVocab = 40;
  std::mt19937 random(1);
  CandidateDistribution q;
  for (const SamplingParams& params : Settings()) {
    for (int round = 0; round < 20; ++round) {
      TokenHistory history(kVocab);
      for (int i = 0; i < 15; ++i) history.Push(int32_t(random() % kVocab));
      std::vector<float> logits(kVocab);
      for (float& x : logits) x = std::normal_distribution<float>(0, 2)(random);
      std::vector<int32_t> ids(kVocab);
      std::iota(ids.begin(), ids.end(), 0);
      std::shuffle(ids.begin(), ids.end(), random);
      std::vector<float> shuffled;
      for (const int32_t id : ids) shuffled.push_back(logits[size_t(id)]);

      Distribution served;
      ServedDistribution(kIsa, logits, params, &history, &served);
      const Distribution& made = q.Make(kIsa, ids, shuffled, params, &history);
      ASSERT_EQ(made.ids, served.ids);
      for (size_t i = 0; i < made.ids.size(); ++i) ASSERT_NEAR(made.probs[i], served.probs[i], 1e-6);
    }
  }
}

TEST(CandidateDistribution, OfFewCandidatesIsConfinedToThem) {
  CandidateDistribution q;
  const std::vector<int32_t> ids = {900, 7, 33};
  std::vector<float> logits = {1, 2, 1};
  const Distribution& made = q.Make(kIsa, ids, logits, {.logit_bias = {{33, 1}, {5, 100}}}, nullptr);
  EXPECT_EQ(made.ids, (std::vector<int32_t>{7, 33, 900}));
  EXPECT_FLOAT_EQ(made.probs[0], made.probs[1]);
  EXPECT_GT(made.probs[1], made.probs[2]);
  EXPECT_NEAR(made.probs[0] + made.probs[1] + made.probs[2], 1, 1e-6);
}

}  // namespace
}  // namespace dspark

#include "draft/candidates.h"

#include <gtest/gtest.h>

#include <vector>

namespace dspark {
namespace {

using Ids = std::vector<int32_t>;

const std::vector<float> kLogits = {0.1f, 5, 0.2f, 4, 0.3f, 3, 0.4f, 2};

Ids Candidates(int count, const Ids& raised, const Ids& draft_to_target = {}) {
  Ids ids(static_cast<size_t>(count));
  std::vector<float> values(ids.size());
  FindSampledCandidates(Isa::kReference, kLogits, raised, draft_to_target, ids, values);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(values[i], kLogits[size_t(ids[i])]);
  return ids;
}

TEST(SampledCandidates, AreTheLikeliest) { EXPECT_EQ(Candidates(3, {}), Ids({1, 3, 5})); }

TEST(SampledCandidates, RaisedTokensTakeTheLastPlaces) {
  EXPECT_EQ(Candidates(4, {0}), Ids({1, 3, 5, 0}));
  EXPECT_EQ(Candidates(4, {0, 6}), Ids({1, 3, 6, 0}));
  EXPECT_EQ(Candidates(4, {3, 0, 3}), Ids({1, 3, 5, 0})) << "one that is there already";
  EXPECT_EQ(Candidates(4, {7, 0}), Ids({1, 3, 0, 7})) << "one that is there, in the last place";
  EXPECT_EQ(Candidates(2, {0, 2, 4}), Ids({2, 0})) << "more than there is room for";
}

TEST(SampledCandidates, RaisedTokensAreTheTargets) {
  const Ids draft_to_target = {10, 20, 30, 40, 50, 60, 70, 80};
  EXPECT_EQ(Candidates(3, {30}, draft_to_target), Ids({1, 3, 2}));
  EXPECT_EQ(Candidates(3, {31}, draft_to_target), Ids({1, 3, 5})) << "one that the drafter does not have";
  EXPECT_EQ(Candidates(3, {60, 10}, draft_to_target), Ids({1, 0, 5}));
}

}  // namespace
}  // namespace dspark

#include "engine/budget.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/acceptance.h"

namespace dspark {
namespace {

std::vector<int> Choose(const CostTable& costs, int base_rows, int room,
                        const std::vector<std::vector<float>>& conditional) {
  std::vector<VerifyCandidate> candidates;
  for (const auto& c : conditional) candidates.push_back({c});
  Budget budget;
  budget.Choose(costs, base_rows, room, candidates);
  std::vector<int> lengths;
  for (const auto& candidate : candidates) lengths.push_back(candidate.length);
  return lengths;
}

TEST(Budget, FreeRowsAreAllUsedAndDearRowsNone) {
  EXPECT_EQ(Choose(CostTable({{1, 1}, {16, 1.0001}}), 1, 16, {{0.9f, 0.8f, 0.7f}}), std::vector<int>{3});
  EXPECT_EQ(Choose(CostTable({{1, 1}, {16, 16}}), 1, 16, {{0.9f, 0.8f, 0.7f}}), std::vector<int>{0});
  EXPECT_EQ(Choose(CostTable({{1, 1}, {16, 1.0001}}), 1, 2, {{0.9f, 0.8f, 0.7f}}), std::vector<int>{2});
  EXPECT_EQ(Choose(CostTable({{1, 1}}), 1, 16, {{}}), std::vector<int>{0});
}

TEST(Budget, ADraftThatCannotHoldIsNeverVerified) {
  EXPECT_EQ(Choose(CostTable({{1, 1}, {16, 1.0001}}), 1, 16, {{0.9f, 0.0f, 1.0f}}), std::vector<int>{1});
}

TEST(Budget, GainsBelowTheMarginAreNotTaken) {
  EXPECT_EQ(Choose(CostTable({{1, 1}, {2, 1}}), 1, 16, {{0.02f}}), std::vector<int>{0});
  EXPECT_EQ(Choose(CostTable({{1, 1}, {2, 1}}), 1, 16, {{0.04f}}), std::vector<int>{1});
}

// A staircase: the second row is dear, the next two are free. A search that stops at the first decline stays
// at zero.
TEST(Budget, LooksBeyondAStep) {
  const CostTable stairs({{1, 1}, {2, 2}, {4, 2}, {5, 4}});
  EXPECT_EQ(Choose(stairs, 1, 16, {{0.9f, 0.9f, 0.9f, 0.9f}}), std::vector<int>{3});
}

// Against all assignments of lengths to sequences.
TEST(Budget, FindsTheBestAdmission) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(0.05f, 1);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<CostTable::Point> points{{1, 1.0}};
    for (int rows = 2; rows <= 12; ++rows) points.push_back({rows, points.back().ms + 0.3 * uniform(random)});
    const CostTable costs(points);
    std::vector<std::vector<float>> conditional(3);
    for (auto& c : conditional) {
      c.resize(random() % 4);
      for (float& x : c) x = uniform(random);
    }
    const auto rate = [&](const std::vector<int>& lengths) {
      double expected = 3;
      int rows = 3;
      for (int r = 0; r < 3; ++r) {
        float cumulative = 1;
        for (int j = 0; j < lengths[r]; ++j) expected += cumulative *= conditional[r][j];
        rows += lengths[r];
      }
      return expected / costs.Ms(rows);
    };
    double best = kGainMargin * rate({0, 0, 0});
    for (int a = 0; a <= int(conditional[0].size()); ++a) {
      for (int b = 0; b <= int(conditional[1].size()); ++b) {
        for (int c = 0; c <= int(conditional[2].size()); ++c) best = std::max(best, rate({a, b, c}));
      }
    }
    const auto chosen = Choose(costs, 3, 64, conditional);
    const double got = chosen == std::vector<int>{0, 0, 0} ? kGainMargin * rate(chosen) : rate(chosen);
    EXPECT_NEAR(got, best, 1e-6 * best) << "trial " << trial;
  }
}

TEST(AcceptanceEstimate, FollowsWhatHappens) {
  AcceptanceEstimate estimate;
  for (int i = 0; i < 200; ++i) estimate.Record(3, 2, 3);  // matches of 3 hold for two tokens, never three
  EXPECT_GT(estimate.Conditional(3, 0), 0.95f);
  EXPECT_GT(estimate.Conditional(3, 1), 0.95f);
  EXPECT_LT(estimate.Conditional(3, 2), 0.05f);
  // The third draft of a match of 3 is the second of a match of 4.
  EXPECT_EQ(estimate.Conditional(3, 2), estimate.Conditional(4, 1));
  EXPECT_EQ(estimate.Conditional(0, 0), AcceptanceEstimate().Conditional(0, 0))
      << "other sources keep their cells";
}

TEST(ShadowProposal, IsComparedAcrossRounds) {
  AcceptanceEstimate estimate, untouched;
  ShadowProposal shadow;
  Proposal proposal;
  proposal.tokens = {5, 6, 7, 8};
  proposal.match_length = 2;
  shadow.Start(proposal);
  shadow.Compare(std::vector<int32_t>{5}, &estimate);
  EXPECT_TRUE(shadow.active());
  EXPECT_EQ(estimate.Conditional(2, 0), untouched.Conditional(2, 0)) << "not known yet";
  shadow.Compare(std::vector<int32_t>{6, 9, 8}, &estimate);
  EXPECT_FALSE(shadow.active());
  EXPECT_GT(estimate.Conditional(2, 0), untouched.Conditional(2, 0));
  EXPECT_GT(estimate.Conditional(2, 1), untouched.Conditional(2, 1));
  EXPECT_LT(estimate.Conditional(2, 2), untouched.Conditional(2, 2));
  EXPECT_EQ(estimate.Conditional(2, 3), untouched.Conditional(2, 3)) << "never examined";
}

}  // namespace
}  // namespace dspark

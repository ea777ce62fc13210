#include "engine/budget.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/acceptance.h"

namespace dspark {
namespace {

std::vector<int> Choose(const CostTable& costs, int base_rows, int room,
                        const std::vector<std::vector<float>>& conditional, bool stop_early = false) {
  std::vector<VerifyCandidate> candidates;
  for (const auto& c : conditional) candidates.push_back({c});
  Budget budget;
  budget.Choose(costs, {.base_rows = base_rows, .room = room, .stop_at_first_decline = stop_early},
                candidates);
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

// Drafting itself must be paid for by what it gives.
TEST(Budget, PricesTheDraft) {
  const CostTable costs({{1, 1}, {4, 1}});
  const std::vector<float> c = {0.5f, 0.5f, 0.5f};  // 1.875 tokens a round
  for (const double draft_ms : {0.0, 0.7, 0.9, 2.0}) {
    std::vector<VerifyCandidate> candidates = {{c}};
    Budget().Choose(costs, {.base_rows = 1, .room = 3, .draft_ms = draft_ms}, candidates);
    EXPECT_EQ(candidates[0].length, draft_ms < 0.8 ? 3 : 0) << draft_ms;
  }
}

// Appendix A of the paper: passes per second 1, 0.5, 0.45 at 1, 2, 3 rows; c_1 = 0.8, and c_2 depends on the
// first draft. Draft and target differ: q = (0.5, 0.5), p = (0.7, 0.3).
double ServedShareOfTokenA(bool stop_early) {
  const CostTable costs({{1, 1 / 1.0}, {2, 1 / 0.5}, {3, 1 / 0.45}});
  double share = 0;
  for (const bool drafted_a : {true, false}) {
    const float c2 = drafted_a ? 0.9f : 0.1f;
    const bool verified = Choose(costs, 1, 2, {{0.8f, c2}}, stop_early)[0] > 0;
    // p / q ≥ 1 for A; B is kept with 0.3 / 0.5 and corrected to A otherwise.
    const double a_if_verified = drafted_a ? 1 : 1 - 0.3 / 0.5;
    share += 0.5 * (verified ? a_if_verified : 0.7);
  }
  return share;
}

TEST(Budget, StoppingAtTheFirstDeclineKeepsTheTargetsDistribution) {
  EXPECT_NEAR(ServedShareOfTokenA(true), 0.7, 1e-9);
  EXPECT_NEAR(ServedShareOfTokenA(false), 0.85, 1e-9);  // what searching on would serve
}

// Whether draft k is admitted must not change with any c behind it: all pairs of confidences that agree up to
// k.
TEST(Budget, AdmissionNeverLooksBehindADraftWhenItStopsEarly) {
  std::mt19937 random(6);
  std::uniform_real_distribution<float> uniform(0.05f, 1);
  int differing = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<CostTable::Point> points{{1, 1.0}};
    for (int rows = 2; rows <= 12; ++rows) points.push_back({rows, points.back().ms + 0.5 * uniform(random)});
    const CostTable costs(points);
    std::vector<std::vector<float>> one(2, std::vector<float>(4)), other;
    for (auto& c : one) {
      for (float& x : c) x = uniform(random);
    }
    other = one;
    const size_t k = random() % 4;
    for (size_t j = k + 1; j < 4; ++j) other[0][j] = uniform(random);
    for (const bool stop_early : {true, false}) {
      const bool in_one = Choose(costs, 2, 8, one, stop_early)[0] > int(k);
      const bool in_other = Choose(costs, 2, 8, other, stop_early)[0] > int(k);
      ASSERT_TRUE(!stop_early || in_one == in_other) << "trial " << trial;
      differing += in_one != in_other;
    }
  }
  EXPECT_GT(differing, 0) << "searching on must be caught by this test";
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
  EXPECT_FALSE(shadow.Compare(std::vector<int32_t>{5}));
  EXPECT_TRUE(shadow.active());
  EXPECT_EQ(estimate.Conditional(2, 0), untouched.Conditional(2, 0)) << "not known yet";
  const auto outcome = shadow.Compare(std::vector<int32_t>{6, 9, 8});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->kept, 2);
  EXPECT_EQ(outcome->examined, 3);
  estimate.Record(outcome->match_length, outcome->kept, outcome->examined);
  EXPECT_FALSE(shadow.active());
  EXPECT_GT(estimate.Conditional(2, 0), untouched.Conditional(2, 0));
  EXPECT_GT(estimate.Conditional(2, 1), untouched.Conditional(2, 1));
  EXPECT_LT(estimate.Conditional(2, 2), untouched.Conditional(2, 2));
  EXPECT_EQ(estimate.Conditional(2, 3), untouched.Conditional(2, 3)) << "never examined";
}

}  // namespace
}  // namespace dspark

#include "engine/budget.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/acceptance.h"

namespace dspark {
namespace {

std::vector<int> Choose(const CostTable& costs, int base_rows, int room,
                        const std::vector<std::vector<float>>& conditional, bool stop_early = false) {
  std::vector<VerifyCandidate> candidates;
  for (const auto& c : conditional) candidates.push_back({.conditional = c});
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

// Rows cost a millisecond each: a draft that is kept six times in ten loses. 28 rows of prompts beside it
// change nothing, for they are read in this step or another.
TEST(Budget, PromptsDoNotMakeDraftsCheap) {
  const CostTable costs({{1, 1}, {64, 64}});
  const std::vector<float> c = {0.6f};
  for (const double prompt_ms : {28.0, 0.0}) {
    std::vector<VerifyCandidate> candidates(4, {.conditional = c});
    Budget().Choose(costs, {.base_rows = 32, .room = 8, .prompt_ms = prompt_ms}, candidates);
    EXPECT_EQ(candidates[0].length, prompt_ms > 0 ? 0 : 1);
  }
}

// Drafting itself must be paid for by what it gives.
TEST(Budget, PricesTheDraft) {
  const CostTable costs({{1, 1}, {4, 1}});
  const std::vector<float> c = {0.5f, 0.5f, 0.5f};  // 1.875 tokens a round
  for (const double draft_ms : {0.0, 0.7, 0.9, 2.0}) {
    std::vector<VerifyCandidate> candidates = {{.conditional = c}};
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

// The same example with a searching planner that only says how many drafts are verified: asked about another,
// earlier block it tells nothing about this one; asked about this one it does.
double ServedShareWithCapacity(bool from_this_block) {
  const CostTable costs({{1, 1 / 1.0}, {2, 1 / 0.5}, {3, 1 / 0.45}});
  double share = 0;
  for (const bool earlier_a : {true, false}) {
    for (const bool drafted_a : {true, false}) {
      const float c2 = drafted_a ? 0.9f : 0.1f, earlier_c2 = earlier_a ? 0.9f : 0.1f;
      const int capacity = Choose(costs, 1, 2, {{0.8f, from_this_block ? c2 : earlier_c2}})[0];
      std::vector<VerifyCandidate> candidates(1);
      const std::vector<float> now = {0.8f, c2};
      candidates[0].conditional = now;
      Budget().Fill(capacity, {.base_rows = 1, .room = 2}, candidates);
      const double a_if_verified = drafted_a ? 1 : 1 - 0.3 / 0.5;
      share += 0.25 * (candidates[0].length > 0 ? a_if_verified : 0.7);
    }
  }
  return share;
}

TEST(Budget, ACapacityFromEarlierConfidencesKeepsTheTargetsDistribution) {
  EXPECT_NEAR(ServedShareWithCapacity(false), 0.7, 1e-9);
  EXPECT_NEAR(ServedShareWithCapacity(true), 0.85, 1e-9);
}

TEST(Budget, FillTakesTheMostConfident) {
  const std::vector<std::vector<float>> c = {{0.9f, 0.5f, 0.9f}, {0.6f, 0.9f}, {}};
  for (const auto& [capacity, lengths] : std::map<int, std::vector<int>>{
           {0, {0, 0, 0}}, {1, {1, 0, 0}}, {2, {1, 1, 0}}, {3, {1, 2, 0}}, {4, {2, 2, 0}}, {9, {3, 2, 0}}}) {
    std::vector<VerifyCandidate> candidates;
    for (const auto& conditional : c) candidates.push_back({.conditional = conditional});
    Budget().Fill(capacity, {.base_rows = 3, .room = 16}, candidates);
    for (size_t r = 0; r < c.size(); ++r) EXPECT_EQ(candidates[r].length, lengths[r]) << capacity;
    Budget().Fill(capacity, {.base_rows = 3, .room = 2}, candidates);
    EXPECT_EQ(candidates[0].length + candidates[1].length, std::min(capacity, 2));
  }
}

// Depth makes a sequence's rows dearer, and with them its drafts.
TEST(Budget, DeepSequencesGetFewerDrafts) {
  const CostTable costs({{2, 1.0}, {8, 1.3}});
  const std::vector<float> c = {0.6f, 0.6f, 0.6f};
  std::vector<VerifyCandidate> candidates = {{.conditional = c}, {.conditional = c, .row_ms = 0.25}};
  Budget().Choose(costs, {.base_rows = 2, .room = 6, .depth_ms = 0.25}, candidates);
  EXPECT_GT(candidates[0].length, candidates[1].length);
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
  for (int i = 0; i < 200; ++i)
    estimate.Record({DraftOrigin::kLookup, 3, 2, 3});  // matches of 3 hold for two tokens, never three
  EXPECT_GT(estimate.Conditional(3, 0), 0.95f);
  EXPECT_GT(estimate.Conditional(3, 1), 0.95f);
  EXPECT_LT(estimate.Conditional(3, 2), 0.05f);
  // The third draft of a match of 3 is the second of a match of 4.
  EXPECT_EQ(estimate.Conditional(3, 2), estimate.Conditional(4, 1));
  EXPECT_EQ(estimate.Conditional(0, 0), AcceptanceEstimate().Conditional(0, 0))
      << "other sources keep their cells";
}

TEST(AcceptanceEstimate, ForcedTextIsInDoubtAtItsFirstDraft) {
  AcceptanceEstimate estimate;
  Proposal forced;
  forced.origin = DraftOrigin::kForced;
  forced.tokens = {1, 2, 3};
  forced.confidence = {0.9f, 0.99f, 0.99f};
  EXPECT_NEAR(estimate.Kept(forced), 0.9 * (1 + 0.99 + 0.99 * 0.99), 1e-5);
  for (int i = 0; i < 50; ++i)
    estimate.Record({DraftOrigin::kForced, 0, i % 2 == 0 ? 3 : 0, i % 2 == 0 ? 3 : 1, forced.confidence});
  EXPECT_NEAR(estimate.Kept(forced, 0), 0.5f, 0.1f) << "the cut into tokens is in doubt";
  for (int k = 1; k < 3; ++k) EXPECT_GT(estimate.Kept(forced, k), 0.95f) << "and goes on as it began";
}

TEST(ShadowProposal, IsComparedAcrossRounds) {
  AcceptanceEstimate estimate, untouched;
  ShadowProposal shadow;
  Proposal proposal;
  proposal.tokens = {5, 6, 7, 8};
  proposal.origin = DraftOrigin::kLookup;
  proposal.match_length = 2;
  shadow.Start(proposal);
  EXPECT_FALSE(shadow.Compare(std::vector<int32_t>{5}));
  EXPECT_TRUE(shadow.active());
  EXPECT_EQ(estimate.Conditional(2, 0), untouched.Conditional(2, 0)) << "not known yet";
  const auto outcome = shadow.Compare(std::vector<int32_t>{6, 9, 8});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->kept, 2);
  EXPECT_EQ(outcome->examined, 3);
  EXPECT_EQ(outcome->origin, DraftOrigin::kLookup);
  estimate.Record(*outcome);
  EXPECT_FALSE(shadow.active());
  EXPECT_GT(estimate.Conditional(2, 0), untouched.Conditional(2, 0));
  EXPECT_GT(estimate.Conditional(2, 1), untouched.Conditional(2, 1));
  EXPECT_LT(estimate.Conditional(2, 2), untouched.Conditional(2, 2));
  EXPECT_EQ(estimate.Conditional(2, 3), untouched.Conditional(2, 3)) << "never examined";
}

// A table that promises too much is believed less, and what it learns is no other source's.
TEST(AcceptanceEstimate, OriginsLearnApart) {
  AcceptanceEstimate estimate;
  const std::vector<float> promised = {0.8f, 0.8f};
  for (int i = 0; i < 200; ++i)
    estimate.Record({DraftOrigin::kTable, 0, i % 2, 1 + i % 2, promised});  // half of what was promised
  Proposal table;
  table.origin = DraftOrigin::kTable;
  table.tokens = {1, 2};
  table.confidence = promised;
  EXPECT_NEAR(estimate.Kept(table, 0), 0.5f, 0.05f);
  EXPECT_LT(estimate.Kept(table, 1), 0.1f);
  EXPECT_NEAR(estimate.Kept(table), 0.5 * (1 + estimate.Kept(table, 1)), 0.05);
  table.origin = DraftOrigin::kModel;
  EXPECT_FLOAT_EQ(estimate.Kept(table, 0), 0.8f);
  EXPECT_FALSE(estimate.KnowsModel());
  EXPECT_DOUBLE_EQ(estimate.KeptOfModel(2), AcceptanceEstimate().KeptOfModel(2));
  for (int i = 0; i < 8; ++i) estimate.Record({DraftOrigin::kModel, 0, 2, 2});
  EXPECT_TRUE(estimate.KnowsModel());
  EXPECT_GT(estimate.KeptOfModel(2), 1.5);
}

// Of every origin one proposal at a time is compared with the text, whoever's was verified.
TEST(DraftWatch, LearnsFromAllThatWasWeighed) {
  DraftWatch watch;
  Proposal copy, table;
  copy.origin = DraftOrigin::kLookup;
  copy.tokens = {1, 2};
  copy.match_length = 3;
  table.origin = DraftOrigin::kTable;
  table.tokens = {1, 9};
  table.confidence = {0.5f, 0.5f};
  EXPECT_DOUBLE_EQ(watch.Weigh(copy), watch.acceptance.Kept(copy));
  EXPECT_DOUBLE_EQ(watch.Weigh(table), 0.75);
  table.tokens = {7, 7};
  watch.Weigh(table);  // the first is still under way
  std::vector<DraftOutcome> outcomes;
  watch.Compare(std::vector<int32_t>{1, 2}, [&](const DraftOutcome& o) { outcomes.push_back(o); });
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].origin, DraftOrigin::kLookup);
  EXPECT_EQ(outcomes[0].kept, 2);
  EXPECT_EQ(outcomes[1].origin, DraftOrigin::kTable);
  EXPECT_EQ(outcomes[1].kept, 1);
  EXPECT_EQ(outcomes[1].examined, 2);
}

}  // namespace
}  // namespace dspark

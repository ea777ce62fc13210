#include "engine/draft_plan.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

TEST(DraftCost, ACallThatReadsThePromptIsNotTheRule) {
  DraftCost cost;
  EXPECT_EQ(cost.Ms(1), 0);
  cost.Observe(1, 40);
  EXPECT_EQ(cost.Ms(1), 0) << "one call is not believed";
  cost.Observe(1, 1.2);
  EXPECT_DOUBLE_EQ(cost.Ms(1), 1.2);
  cost.Observe(1, 40);
  EXPECT_LT(cost.Ms(1), 1.25);
  for (int i = 0; i < 300; ++i) cost.Observe(1, 2.4);
  EXPECT_NEAR(cost.Ms(1), 2.4, 0.05) << "but it follows what lasts";
}

TEST(DraftCost, UnseenNumbersOfSequencesComeFromTheNearest) {
  DraftCost cost;
  for (int i = 0; i < 2; ++i) cost.Observe(2, 2);
  EXPECT_DOUBLE_EQ(cost.Ms(1), 2);
  EXPECT_DOUBLE_EQ(cost.Ms(2), 2);
  EXPECT_GT(cost.Ms(4), 2);
  EXPECT_LT(cost.Ms(4), 4);
}

TEST(DraftBackoff, TriesLessAndLessOften) {
  DraftBackoff backoff;
  std::vector<int> tries;
  for (int step = 1; step <= 1100; ++step) {
    if (!backoff.Due()) continue;
    tries.push_back(step);
    backoff.Tried();
  }
  EXPECT_EQ(tries, (std::vector<int>{8, 40, 168, 680}));
  backoff.Reset();
  int wait = 1;
  while (!backoff.Due()) ++wait;
  EXPECT_EQ(wait, 8);
  EXPECT_TRUE(backoff.Due()) << "until it was tried";
}

TEST(TrialCredit, AllTriesTogetherTakeAHundredthOfTheTime) {
  TrialCredit credit;
  int tries = 0;
  for (; credit.Spend(2); ++tries) {
  }
  EXPECT_EQ(tries, 4) << "at the start";
  for (int step = 0; step < 1000; ++step) {
    credit.Earn(10);
    for (int sequence = 0; sequence < 64; ++sequence) tries += credit.Spend(2);
  }
  EXPECT_NEAR(tries, 4 + 50, 1);
}

// A try of 2 ms that took 10: the share of time is that of what it really took.
TEST(TrialCredit, TriesThatTakeLongerAreRarer) {
  TrialCredit credit;
  while (credit.Spend(2)) credit.Charge(8);
  int tries = 0;
  for (int step = 0; step < 10000; ++step) {
    credit.Earn(10);
    if (!credit.Spend(2)) continue;
    credit.Charge(8);
    ++tries;
  }
  EXPECT_NEAR(tries * 10, 0.01 * 10000 * 10, 50);
}

}  // namespace
}  // namespace dspark

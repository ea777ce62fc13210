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
    if (backoff.Tick()) tries.push_back(step);
  }
  EXPECT_EQ(tries, (std::vector<int>{8, 40, 168, 680}));
  backoff.Reset();
  int wait = 1;
  while (!backoff.Tick()) ++wait;
  EXPECT_EQ(wait, 8);
}

}  // namespace
}  // namespace dspark

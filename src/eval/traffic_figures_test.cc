#include "eval/traffic_figures.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dspark {
namespace {

TEST(TrafficFigures, PercentilesAreNearestRanks) {
  std::vector<double> values;
  for (int i = 100; i > 0; --i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p90, 90);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(Percentile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Percentile({3, 1}, 0.5), 1);
  EXPECT_EQ(Percentile({4}, 0.99), 4);
  EXPECT_EQ(Percentile({1, 2}, 1), 2);
  EXPECT_TRUE(std::isnan(Percentile({}, 0.5)));
}

TEST(TrafficFigures, SpeedsComeFromWindowsAndReplies) {
  const std::vector<LoadRun> runs{
      {.window_ms = 1000,
       .window_tokens = 100,
       // 4 tokens in 30 ms behind the first: 10 ms each.
       .replies = {{.due_ms = 5, .first_ms = 25, .last_ms = 55, .tokens = 4, .complete = true},
                   {.due_ms = 5, .first_ms = 45, .last_ms = 65, .tokens = 2}},  // cut, 20 ms
       .steps = {.steps = 10,
                 .rows = 40,
                 .sequences = 20,
                 .rounds = 20,
                 .drafted = 30,
                 .accepted = 15,
                 .committed = 35,
                 .ms = 800,
                 .pass_ms = 700,
                 .drafter_ms = 60}},
      {.window_ms = 1000,
       .window_tokens = 300,
       .replies = {{.error = "broken"},
                   {.due_ms = 1, .first_ms = 2, .last_ms = 2, .tokens = 1, .complete = true}}}};
  const LoadFigures f = FiguresOf(runs);
  EXPECT_EQ(f.runs, (std::vector<double>{100, 300}));
  EXPECT_EQ(f.tok_per_s, 100);
  EXPECT_DOUBLE_EQ(f.user_tok_per_s, 1000 / 15.0);
  EXPECT_EQ(f.ttft_ms.p50, 20);
  EXPECT_EQ(f.ttft_ms.p99, 40);
  EXPECT_EQ(f.tpot_ms.p99, 20);
  EXPECT_EQ(f.replies, 2);
  EXPECT_EQ(f.cut, 1);
  EXPECT_EQ(f.errors, 1);
  EXPECT_EQ(f.first_error, "broken");
  EXPECT_DOUBLE_EQ(f.verify_length, 1.5);
  EXPECT_DOUBLE_EQ(f.acceptance, 0.5);
  EXPECT_DOUBLE_EQ(f.tau, 1.75);
  EXPECT_DOUBLE_EQ(f.rows, 4);
  EXPECT_DOUBLE_EQ(f.sequences, 2);
  EXPECT_DOUBLE_EQ(f.scheduling, 0.05);
  EXPECT_DOUBLE_EQ(f.drafting, 0.075);
  EXPECT_DOUBLE_EQ(f.outside, 0.6);
}

TEST(TrafficFigures, WhatWasNotMeasuredIsNull) {
  LoadRun run{.window_ms = 100, .window_tokens = 5};
  const auto json = ToJson(LoadPoint{.policy = "off", .concurrency = 4, .figures = FiguresOf({&run, 1})});
  EXPECT_EQ(json["tok_per_s"], 50);
  EXPECT_EQ(json["concurrency"], 4);
  EXPECT_TRUE(json["verify_length"].is_null());
  EXPECT_TRUE(json["ttft_ms"]["p50"].is_null());
  EXPECT_FALSE(json.contains("requests_per_s"));
}

TEST(TrafficFigures, SumsAddUpAndComeOff) {
  const StepSums a{.steps = 3, .rows = 5, .ms = 7.5, .tokens = 2}, b{.steps = 1, .rows = 2, .ms = 0.5};
  StepSums sum = a;
  sum += b;
  EXPECT_EQ(sum.rows, 7);
  EXPECT_EQ((sum - b).ms, a.ms);
  EXPECT_EQ((sum - a).steps, 1);
  EXPECT_EQ((sum - a).tokens, 0);
}

}  // namespace
}  // namespace dspark

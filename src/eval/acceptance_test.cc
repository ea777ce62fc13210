#include "eval/acceptance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "test_data.h"

namespace dspark::test {
namespace {

using Json = nlohmann::json;

void ExpectRow(const AcceptanceStats& ours, const Json& golden) {
  const Json &sums = golden["metric_summary"], &row = golden["metrics_row"];
  EXPECT_EQ(ours.rounds, sums["proposal_count"]);
  EXPECT_EQ(ours.committed, sums["acceptance_length_sum"]);
  EXPECT_EQ(ours.drafted, sums["proposal_length_sum"]);
  EXPECT_EQ(ours.verified_at, sums["proposals_at_pos"].get<std::vector<int64_t>>());
  EXPECT_EQ(ours.accepted_at, sums["accepted_at_pos"].get<std::vector<int64_t>>());
  EXPECT_NEAR(ours.Tau(), row["acceptance_length"], 1e-12);
  EXPECT_NEAR(ours.DraftsPerRound(), row["draft_tokens_per_proposal"], 1e-12);
  EXPECT_NEAR(ours.VerifyRate(), row["verify_rate"], 1e-12);
  const auto rates = ours.Unconditional();
  ASSERT_EQ(rates.size(), row["accept_rates_by_position"].size());
  for (size_t k = 0; k < rates.size(); ++k) EXPECT_NEAR(rates[k], row["accept_rates_by_position"][k], 1e-12);
}

void AddRun(const Json& run, AcceptanceStats* stats) {
  for (size_t r = 0; r < run["acceptance_lengths"].size(); ++r) {
    stats->Add(run["proposal_lengths"][r], run["accepted_draft_lengths"][r], run["acceptance_lengths"][r]);
  }
}

class GoldenAcceptance : public testing::TestWithParam<std::string> {};

TEST_P(GoldenAcceptance, RecordedRuns) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/metrics.json");
  const Json metrics = Json::parse(std::ifstream(GoldenDir() + "/drafters/metrics.json"))["speculation"];
  const Json runs = Json::parse(std::ifstream(GoldenDir() + "/drafters/infer_" + GetParam() + ".json"));
  AcceptanceStats greedy, stop;
  AddRun(runs["greedy"], &greedy);
  AddRun(runs["stop"], &stop);
  ExpectRow(greedy, metrics[GetParam() + ":greedy"]);
  greedy.Add(stop);
  ExpectRow(greedy, metrics[GetParam() + ":greedy+stop"]);
}

INSTANTIATE_TEST_SUITE_P(Drafters, GoldenAcceptance,
                         testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash", "eagle3"),
                         [](const auto& drafter) { return drafter.param; });

TEST(GoldenHandMade, Rounds) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/metrics.json");
  const Json golden =
      Json::parse(std::ifstream(GoldenDir() + "/drafters/metrics.json"))["speculation"]["hand_made"];
  AcceptanceStats stats;
  for (const Json& round : golden["rounds(acceptance_length,proposal_length,accepted)"])
    stats.Add(round[1], round[2], round[0]);
  ExpectRow(stats, golden);
}

TEST(AcceptanceStats, ConditionalLooksAtReachedPositionsOnly) {
  AcceptanceStats stats;
  stats.Add(3, 3, 4);
  stats.Add(3, 1, 2);
  stats.Add(3, 0, 1);
  stats.Add(1, 1, 2);
  const auto conditional = stats.Conditional(), unconditional = stats.Unconditional();
  ASSERT_EQ(conditional.size(), 3u);
  EXPECT_DOUBLE_EQ(conditional[0], 0.75);
  EXPECT_DOUBLE_EQ(conditional[1], 0.5);
  EXPECT_DOUBLE_EQ(conditional[2], 1);
  EXPECT_DOUBLE_EQ(unconditional[1], 1.0 / 3);
  EXPECT_EQ(AcceptanceStats().Tau(), 0);
  stats = {};
  stats.Add(2, 0, 1);
  EXPECT_TRUE(std::isnan(stats.Conditional()[1]));
}

TEST(AcceptanceStats, WithoutSomeOfItsRounds) {
  AcceptanceStats own, looked_up, all;
  own.Add(2, 1, 2);
  own.Add(0, 0, 1);
  looked_up.Add(5, 5, 6);
  all.Add(own);
  all.Add(looked_up);
  const AcceptanceStats rest = all.Without(looked_up);
  EXPECT_EQ(rest.rounds, 2);
  EXPECT_EQ(rest.committed, 3);
  EXPECT_EQ(rest.drafted, 2);
  EXPECT_EQ(rest.verified_at, own.verified_at);
  EXPECT_EQ(rest.reached_at, own.reached_at);
  EXPECT_EQ(rest.accepted_at, own.accepted_at);
  EXPECT_EQ(all.Without({}).verified_at, all.verified_at);
}

}  // namespace
}  // namespace dspark::test

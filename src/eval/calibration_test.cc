#include "eval/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "golden_tensors.h"
#include "test_data.h"

namespace dspark::test {
namespace {

using Json = nlohmann::json;

void ExpectFigure(double ours, const Json& theirs, const std::string& what) {
  if (theirs.is_null()) {
    EXPECT_TRUE(std::isnan(ours)) << what;
  } else {
    EXPECT_NEAR(ours, theirs.get<double>(), 1e-6) << what;
  }
}

void ExpectRow(std::span<const PositionCalibration> ours, const Json& row, const Json& summary) {
  ASSERT_EQ(ours.size(), row["per_position"].size());
  for (size_t k = 0; k < ours.size(); ++k) {
    const Json& theirs = row["per_position"][k];
    const std::string where = "position " + std::to_string(k) + " ";
    EXPECT_EQ(double(ours[k].rounds), theirs["total_weight"].get<double>()) << where;
    ExpectFigure(ours[k].ece, theirs["ece"], where + "ece");
    ExpectFigure(ours[k].auroc, theirs["auc"], where + "auc");
    ExpectFigure(ours[k].brier, theirs["brier"], where + "brier");
    ExpectFigure(ours[k].predicted, theirs["pred_mean"], where + "pred_mean");
    ExpectFigure(ours[k].observed, theirs["target_mean"], where + "target_mean");
    ASSERT_EQ(ours[k].reliability.size(), theirs["reliability"].size()) << where;
    for (size_t i = 0; i < ours[k].reliability.size(); ++i) {
      const ReliabilityPoint& point = ours[k].reliability[i];
      EXPECT_EQ(point.bin, theirs["reliability"][i]["bin"]) << where;
      EXPECT_EQ(double(point.rounds), theirs["reliability"][i]["weight"].get<double>()) << where;
      ExpectFigure(point.predicted, theirs["reliability"][i]["avg_pred"], where + "avg_pred");
      ExpectFigure(point.observed, theirs["reliability"][i]["avg_target"], where + "avg_target");
    }
  }
  const PositionCalibration mean = SummarizeCalibration(ours);
  ExpectFigure(mean.ece, summary["ece_mean"], "ece_mean");
  ExpectFigure(mean.auroc, summary["auc_mean"], "auc_mean");
  ExpectFigure(mean.brier, summary["brier_mean"], "brier_mean");
  ExpectFigure(mean.predicted, summary["pred_mean"], "pred_mean");
  ExpectFigure(mean.observed, summary["target_mean"], "target_mean");
}

class GoldenCalibration : public testing::Test {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters/metrics.json"); }
  Json Metrics() const { return Json::parse(std::ifstream(GoldenDir() + "/drafters/metrics.json")); }
};

TEST_F(GoldenCalibration, SyntheticSet) {
  const GoldenTensors golden(GoldenDir() + "/drafters/metrics_confidence.safetensors");
  const std::vector<float> logits = golden.Floats("logits");
  const auto prefix = golden.Ints("accept_prefix"), verified = golden.Ints("effective_len"),
             drafted = golden.Ints("draft_token_count");
  std::vector<ConfidenceRound> rounds;
  for (size_t r = 0; r < drafted.size(); ++r) {
    if (drafted[r] == 0) continue;
    ConfidenceRound& round = rounds.emplace_back();
    round.logits.assign(&logits[r * 7], &logits[r * 7] + 7);
    round.verified = verified[r];
    while (round.accepted < 7 && prefix[r * 7 + size_t(round.accepted)]) ++round.accepted;
  }
  const auto ours = MeasureCalibration(rounds, 7);
  const Json metrics = Metrics();
  ExpectRow(ours, metrics["row"], metrics["summary"]);
  for (size_t k = 0; k < 7; ++k) {
    std::vector<double> counts(kCalibrationBins);
    for (const ReliabilityPoint& point : ours[k].reliability)
      counts[size_t(point.bin)] = double(point.rounds);
    EXPECT_EQ(counts, metrics["coarse_count"][k].get<std::vector<double>>());
  }
}

TEST_F(GoldenCalibration, TinySetWithUndefinedFigures) {
  const Json tiny = Metrics()["tiny"];
  std::vector<ConfidenceRound> rounds;
  for (size_t r = 0; r < tiny["logits"].size(); ++r) {
    const auto prefix = tiny["accept_prefix"][r].get<std::vector<int>>();
    rounds.push_back({tiny["logits"][r].get<std::vector<float>>(), tiny["effective_len"][r].get<int>(),
                      prefix[0] + prefix[1], 0});
  }
  ExpectRow(MeasureCalibration(rounds, 7), tiny["row"], tiny["summary"]);
}

// Rounds whose draft k is kept with probability σ(z_k / true_t[k]), where the head says z_k.
std::vector<ConfidenceRound> Simulated(const std::vector<double>& true_t, int rounds) {
  std::vector<ConfidenceRound> all;
  uint64_t draw = 0;
  const auto uniform = [&] { return double(UniformFloat(5, draw++, Purpose::kTest)); };
  for (int r = 0; r < rounds; ++r) {
    ConfidenceRound& round = all.emplace_back();
    round.verified = int(true_t.size());
    bool kept = true;
    for (const double t : true_t) {
      const double z = 8 * uniform() - 2;
      round.logits.push_back(float(z));
      kept = kept && uniform() < 1 / (1 + std::exp(-z / t));
      round.accepted += kept;
    }
  }
  return all;
}

TEST(FitTemperatures, FindsWhatMadeTheRounds) {
  const std::vector<double> true_t{2.5, 1.0, 0.6};
  const auto rounds = Simulated(true_t, 40000);
  const std::vector<float> found = FitTemperatures(rounds, 3);
  const auto before = MeasureCalibration(rounds, 3), after = MeasureCalibration(rounds, 3, found);
  for (size_t k = 0; k < true_t.size(); ++k) {
    EXPECT_NEAR(found[k], true_t[k], 0.25 * true_t[k]) << k;
    EXPECT_LE(after[k].ece, before[k].ece + 0.003) << k;
    EXPECT_LT(after[k].ece, 0.015) << k;
  }
  EXPECT_GT(before[0].ece, 0.05);
}

TEST(FitTemperatures, FewRoundsKeepOne) {
  const auto rounds = Simulated({3, 3}, 40);
  EXPECT_EQ(FitTemperatures(rounds, 2), (std::vector<float>{1, 1}));
  EXPECT_NE(FitTemperatures(rounds, 2, 10), (std::vector<float>{1, 1}));
  EXPECT_EQ(FitTemperatures({}, 3), (std::vector<float>{1, 1, 1}));
}

// Rounds of one draft with the same logit, of which the first `kept` were kept.
std::vector<ConfidenceRound> Alike(float logit, int rounds, int kept) {
  std::vector<ConfidenceRound> all;
  for (int r = 0; r < rounds; ++r)
    all.push_back({.logits = {logit}, .verified = 1, .accepted = r < kept, .committed = 1 + (r < kept)});
  return all;
}

TEST(FitTemperatures, NearestToOneAmongEqualOnes) {
  EXPECT_EQ(FitTemperatures(Alike(0, 100, 40), 1), (std::vector<float>{1}));  // σ(0 / T) is ½ for every T
}

// Outcomes that are (nearly) all alike say nothing of how sure to be.
TEST(FitTemperatures, OutcomesThatAreAlikeKeepOne) {
  for (const int kept : {0, kLeastOutcomes - 1, 101 - kLeastOutcomes, 100})
    EXPECT_EQ(FitTemperatures(Alike(2, 100, kept), 1), (std::vector<float>{1})) << kept;
  for (const int kept : {kLeastOutcomes, 100 - kLeastOutcomes})
    EXPECT_NE(FitTemperatures(Alike(2, 100, kept), 1), (std::vector<float>{1})) << kept;
}

// At position 2 all but a few of the rounds are lost already at position 1, so it is those that it kept and
// lost itself that count.
TEST(FitTemperatures, RoundsThatWereLostBeforeDoNotCount) {
  const auto rounds = [](int lost, int kept) {
    std::vector<ConfidenceRound> all(200, {.logits = {0, -1}, .verified = 2, .accepted = 0, .committed = 1});
    for (int r = 0; r < lost + kept; ++r) all[size_t(r)].accepted = r < lost ? 1 : 2;
    return all;
  };
  for (const auto& [lost, kept] : {std::pair(9, 60), {60, 9}, {0, 60}}) {
    EXPECT_EQ(CalibratedPositions(rounds(lost, kept), 2), (std::vector<bool>{true, false}));
    EXPECT_EQ(FitTemperatures(rounds(lost, kept), 2)[1], 1);
  }
  EXPECT_EQ(CalibratedPositions(rounds(10, 60), 2), (std::vector<bool>{true, true}));
  EXPECT_NE(FitTemperatures(rounds(10, 60), 2)[1], 1);
}

// σ(2 / T) = 0.65 at a T that lies a third of the way between two of the 65 steps.
TEST(FitTemperatures, IsRefinedTwice) {
  const double t = 2 / std::log(0.65 / 0.35);
  EXPECT_NEAR(FitTemperatures(Alike(2, 100, 65), 1)[0], t, 0.002 * t);
}

}  // namespace
}  // namespace dspark::test

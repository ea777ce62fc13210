#include "train/train_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <regex>

#include "temp_dir.h"

namespace dspark::test {
namespace {

StepReport Report(int64_t step) {
  StepReport report{.step = step,
                    .loss = 3.0 / double(step),
                    .grad_norm = 1,
                    .learning_rate = 1e-3,
                    .anchors = 100,
                    .positions = 700,
                    .metrics = BlockMetrics(2)};
  const BlockSlots slots = MakeBlockSlots(std::vector<int32_t>{1, 2, 3}, std::vector<uint8_t>{1, 1, 1},
                                          std::vector<int>{0}, 2, 4.0f);
  const std::vector<int64_t> at = {0, 1};
  const std::vector<float> ce = {1, 2}, l1 = {1, 0.5f}, confidence = {0, 0};
  report.metrics.Add(slots, at, ce.data(), l1.data(), confidence.data());
  return report;
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(TrainLog, DropsLinesBehindTheCheckpoint) {
  const TempDir dir;
  TrainLog log = TrainLog::Open(dir.path(), 0, "dflash for a&b.gguf").value();
  for (int step = 1; step <= 4; ++step) ASSERT_TRUE(log.Add(Report(step), 1.0).ok());
  std::ofstream(dir.path() + "/train.jsonl", std::ios::app) << "{\"step\": 5, \"lo";  // killed while writing
  TrainLog again = TrainLog::Open(dir.path(), 2, "").value();
  ASSERT_TRUE(again.Add(Report(3), 1.0).ok());
  std::ifstream file(dir.path() + "/train.jsonl");
  std::vector<int> steps;
  for (std::string line; std::getline(file, line);) steps.push_back(nlohmann::json::parse(line)["step"]);
  EXPECT_EQ(steps, (std::vector<int>{1, 2, 3}));
}

TEST(TrainLog, CurvesAreOneFile) {
  const TempDir dir;
  TrainLog log = TrainLog::Open(dir.path(), 0, "dflash for a&b.gguf").value();
  for (int step = 1; step <= 900; ++step) ASSERT_TRUE(log.Add(Report(step), 1.0).ok());
  ASSERT_TRUE(log.WriteHtml().ok());
  const std::string html = Read(dir.path() + "/train.html");
  EXPECT_NE(html.find("<title>dspark train: dflash for a&amp;b.gguf</title>"), std::string::npos);
  EXPECT_NE(html.find("slot 1"), std::string::npos);
  EXPECT_NE(html.find("products up to a slot"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_LT(html.size(), 200u * 1024);
}

TEST(TrainLog, LabelsOfTheCurvesHaveRoom) {
  const TempDir dir;
  TrainLog log = TrainLog::Open(dir.path(), 0, "dflash for a&b.gguf").value();
  for (const double rate : {1.234567e-4, 6.001234e-4}) {
    StepReport report = Report(1);
    report.learning_rate = rate;
    ASSERT_TRUE(log.Add(report, 1.0).ok());
  }
  ASSERT_TRUE(log.WriteHtml().ok());
  const std::string html = Read(dir.path() + "/train.html");
  const std::regex label("<text x='(\\d+)' y='[\\d.]+' text-anchor='end'>([^<]+)</text>");
  size_t longest = 0;
  for (std::sregex_iterator at(html.begin(), html.end(), label), end; at != end; ++at) {
    longest = std::max(longest, (*at)[2].str().size());
    EXPECT_GE(std::stoul((*at)[1]), 7 * (*at)[2].str().size()) << (*at)[2];  // 7: a digit at 11px, amply
  }
  EXPECT_GE(longest, 9u);
}

TEST(TrainLog, ProgressNamesRatesAndTimeLeft) {
  EXPECT_EQ(
      ProgressLine(Report(2), 10, 0.5, 7500),
      "step 2/10  loss 1.5000  τ 1.875  accept 0.50 0.75  200 anchors/s  1400 positions/s  2 h 5 min left");
}

TEST(BlockMetrics, AddUp) {
  BlockMetrics sum(2);
  sum.Add(Report(1).metrics);
  sum.Add(Report(1).metrics);
  EXPECT_EQ(sum.blocks(), 2);
  EXPECT_EQ(sum.slots(), 4);
  EXPECT_DOUBLE_EQ(sum.Tau(), Report(1).metrics.Tau());
  EXPECT_DOUBLE_EQ(sum.AcceptRate(1), 0.75);
  // Confidences 0.5 and 0.5, acceptances 0.5 and 0.75: products 0.5 - 0.5 and 0.25 - 0.375.
  const double w = double(std::exp(-0.25f));
  EXPECT_NEAR(sum.ConfidenceCumprodBias(), -0.125 * w / (1 + w), 1e-7);
}

}  // namespace
}  // namespace dspark::test

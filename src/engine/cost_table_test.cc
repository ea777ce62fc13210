#include "engine/cost_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "tiny_model.h"

namespace dspark {
namespace {

TEST(CostTable, InterpolatesAndExtends) {
  const CostTable costs({{1, 2.0}, {4, 6.0}, {8, 5.0}});  // 4 rows cannot cost more than 8
  EXPECT_DOUBLE_EQ(costs.Ms(1), 2.0);
  EXPECT_DOUBLE_EQ(costs.Ms(2), 3.0);
  EXPECT_DOUBLE_EQ(costs.Ms(4), 5.0);
  EXPECT_DOUBLE_EQ(costs.Ms(6), 5.0);
  EXPECT_DOUBLE_EQ(costs.Ms(16), 10.0);
}

TEST(CostTable, FollowsASlowerMachineAndShrugsOffOutliers) {
  CostTable costs({{1, 1.0}, {8, 2.0}});
  costs.Observe(1, 1000);
  EXPECT_LT(costs.Ms(1), 1.05);
  for (int i = 0; i < 500; ++i) costs.Observe(i % 2 ? 1 : 8, i % 2 ? 1.5 : 3.0);
  EXPECT_NEAR(costs.Ms(1), 1.5, 0.02);
  EXPECT_NEAR(costs.Ms(8), 3.0, 0.04);
}

// What every point of `costs` should be read as.
void ExpectNear(const CostTable& costs, const std::map<int, double>& truth) {
  for (const auto& [rows, ms] : truth) EXPECT_NEAR(costs.Ms(rows), ms, 0.05 * ms) << rows << " rows";
}

// Measured while something else ran, then only plain steps: the wide points must not look dear for good.
TEST(CostTable, OneWidthCorrectsTheLevelOfAll) {
  CostTable costs({{1, 2.0}, {4, 2.6}, {16, 6.0}});
  for (int i = 0; i < 400; ++i) costs.Observe(1, 1.0);
  ExpectNear(costs, {{1, 1.0}, {4, 1.3}, {16, 3.0}});
  EXPECT_NEAR(costs.drift().down, 2.0, 0.05);
  EXPECT_EQ(costs.drift().up, 1.0);
}

// A machine whose steps are noisy: what is not run keeps its place among what is.
TEST(CostTable, NoiseMakesUnseenWidthsNeitherDearerNorCheaper) {
  for (const auto& run : {std::vector{24}, std::vector{24, 26, 32}}) {
    CostTable costs({{1, 3.0}, {4, 3.2}, {16, 9.6}, {24, 14.4}, {32, 19.2}, {64, 38.4}});
    std::mt19937 random(5);
    std::lognormal_distribution<double> noise(0, 0.15);
    for (int i = 0; i < 6000; ++i) {
      const int rows = run[size_t(i) % run.size()];
      costs.Observe(rows, 0.6 * rows * noise(random) * (i % 50 == 0 ? 3 : 1));
    }
    EXPECT_NEAR(costs.Ms(16) / costs.Ms(24), 16.0 / 24, 0.05);
    EXPECT_NEAR(costs.Ms(64) / costs.Ms(24), 64.0 / 24, 0.2);
  }
}

TEST(CostTable, OneBadPointIsCorrectedAlone) {
  for (const int bad : {1, 4, 16}) {
    const std::map<int, double> truth{{1, 1.0}, {4, 1.3}, {16, 3.0}};
    std::vector<CostTable::Point> points;
    for (const auto& [rows, ms] : truth) points.push_back({rows, rows == bad ? 3 * ms : ms});
    CostTable costs(points);
    EXPECT_EQ(costs.drift().down, 1.0);
    for (int i = 0; i < 1500; ++i) {
      const int rows = std::array{1, 4, 16}[i % 3];
      costs.Observe(rows, truth.at(rows));
    }
    ExpectNear(costs, truth);
    EXPECT_NEAR(costs.drift().down, 3.0, 0.15);
  }
}

TEST(CostTable, AStepBetweenPointsMovesBothByNearness) {
  CostTable costs({{1, 1.0}, {4, 2.0}, {8, 3.0}});
  for (int i = 0; i < 40; ++i) {  // all points fresh
    for (const int rows : {1, 4, 8}) costs.Observe(rows, costs.Ms(rows));
  }
  ASSERT_EQ(costs.drift().up, 1.0);
  costs.Observe(7, 2 * costs.Ms(7));
  const double far = std::log(costs.Ms(4) / 2), near = std::log(costs.Ms(8) / 3);
  EXPECT_NEAR(near / far, 3, 0.01);
  EXPECT_LT(std::log(costs.Ms(1)), far);
}

// Drafts would be parked for good on a table whose wide points were measured in a bad moment: nothing makes a
// wide pass dearer than narrow ones in its place, and a few trials show what it really costs.
TEST(CostTable, WidePointsMeasuredInABadMomentHeal) {
  CostTable costs({{1, 1.0}, {2, 12.0}, {4, 12.0}, {8, 15.0}});
  EXPECT_DOUBLE_EQ(costs.Ms(2), 2);
  EXPECT_DOUBLE_EQ(costs.Ms(4), 4);
  for (int trial = 0; trial < 6; ++trial) {
    for (int i = 0; i < 30; ++i) costs.Observe(1, 1.0);
    costs.Observe(4, 1.1);
  }
  EXPECT_LT(costs.Ms(4), 1.3);
  EXPECT_NEAR(costs.Ms(1), 1, 0.02);
}

TEST(CostTable, IsReadMonotoneHoweverItMoves) {
  CostTable costs({{1, 1.0}, {4, 1.3}, {16, 3.0}});
  for (int i = 0; i < 400; ++i) costs.Observe(i % 2 ? 1 : 4, i % 2 ? 2.0 : 1.0);
  EXPECT_NEAR(costs.Ms(4), 1.0, 0.05);
  EXPECT_DOUBLE_EQ(costs.Ms(1), costs.Ms(4));
}

TEST(CostTable, SurvivesTheDisk) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/sub/costs.json";
  EXPECT_FALSE(LoadCosts(path).ok());
  ASSERT_TRUE(SaveCosts(path, CostTable({{1, 1.25}, {4, 2.5}}, 0.001)).ok());
  const auto loaded = LoadCosts(path);
  ASSERT_TRUE(loaded.ok());
  EXPECT_DOUBLE_EQ(loaded->Ms(4), 2.5);
  EXPECT_DOUBLE_EQ(loaded->DepthMs(3, 164), 0.3);
  for (const char* bad :
       {"", "[]", "{\"ms_by_rows\": [[1, 1]]}", "{\"ms_by_rows\": [], \"ms_per_row_position\": 0}",
        "{\"ms_by_rows\": [[1]], \"ms_per_row_position\": 0}",
        "{\"ms_by_rows\": [[1, -2]], \"ms_per_row_position\": 0}",
        "{\"ms_by_rows\": [[4, 1], [1, 2]], \"ms_per_row_position\": 0}",
        "{\"ms_by_rows\": [[1, \"x\"]], \"ms_per_row_position\": 0}"}) {
    std::ofstream(path) << bad;
    EXPECT_FALSE(LoadCosts(path).ok()) << bad;
  }
}

// A target whose passes take `ms_per_pass`, whatever their rows.
class SleepingTarget : public Target {
 public:
  explicit SleepingTarget(int ms_per_pass) : ms_per_pass_(ms_per_pass) {}
  const ModelConfig& config() const override { return config_; }
  const TargetLimits& limits() const override { return limits_; }
  KvLayout kv_layout() const override { return {.layers = 1, .kv_heads = 1, .head_dim = 16}; }
  TargetMemory memory() const override { return {}; }
  const PackedMatrix& embedding() const override { return matrix_; }
  const PackedMatrix& head() const override { return matrix_; }
  Isa isa() const override { return Isa::kReference; }
  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int>) override {
    int rows = 0;
    for (const Segment& segment : segments) {
      rows += int(segment.tokens.size());
      EXPECT_LE(segment.tokens.size(), 8u);
      EXPECT_EQ(segment.position, segments[0].position);
    }
    ++(segments[0].position > CostTable::kDepth ? deep_passes : passes)[rows];
    std::this_thread::sleep_for(std::chrono::milliseconds(ms_per_pass_));
    return {};
  }

  std::map<int, int> passes, deep_passes;  // by rows

 private:
  int ms_per_pass_;
  ModelConfig config_;
  TargetLimits limits_;
  PackedMatrix matrix_;
};

std::vector<int> Rows(const CostTable& costs) {
  std::vector<int> rows;
  for (const auto& point : costs.points()) rows.push_back(point.rows);
  return rows;
}

TEST(MeasureCosts, WithoutTimeOnlyWhatDraftLengthsNeed) {
  SleepingTarget target(2);
  BlockPool blocks(target.kv_layout(), 64);
  const CostTable costs = MeasureCosts(target, blocks, 0);
  EXPECT_EQ(Rows(costs), (std::vector<int>{1, 2, 4, 8}));
  EXPECT_EQ(target.passes, (std::map<int, int>{{1, 2}, {2, 1}, {4, 1}, {8, 1}})) << "one row warms up";
  EXPECT_GE(costs.Ms(1), 2);
  EXPECT_DOUBLE_EQ(costs.Ms(64), 8 * costs.Ms(8)) << "beyond the last point";
}

TEST(MeasureCosts, StopsWhenTimeIsUp) {
  SleepingTarget target(10);
  BlockPool blocks(target.kv_layout(), 64);
  const CostTable costs = MeasureCosts(target, blocks, 75);
  int passes = 0;
  for (const auto& [rows, count] : target.passes) passes += count;
  EXPECT_LE(passes, 1 + 8) << "a warm-up, and as many passes of 10 ms as begin within 75";
  for (const auto& [rows, count] : target.passes) EXPECT_LE(rows, 16) << "wide passes come last";
  EXPECT_GE(costs.points().size(), 4u);
}

TEST(MeasureCosts, WithTimeEverythingOverAndOver) {
  SleepingTarget target(0);
  BlockPool blocks(target.kv_layout(), 64);
  const CostTable costs = MeasureCosts(target, blocks, 1e6);
  EXPECT_EQ(Rows(costs), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64}));
  EXPECT_EQ(target.passes[1], 6);
  EXPECT_EQ(target.passes[8], 5 + 3);
  EXPECT_EQ(target.deep_passes, (std::map<int, int>{{8, 3}}));
  EXPECT_EQ(target.passes[16], 3);
  EXPECT_EQ(target.passes[64], 2);
}

TEST(MeasureCosts, AtAnyContextLength) {
  for (const int context : {1, 16, 63, 64, 65, 128}) {
    test::TinyModelOptions options;
    options.max_context = context;
    options.blocks = (context + options.block_tokens - 1) / options.block_tokens;
    test::TinyModel model(options);
    const CostTable costs = MeasureCosts(*model.target, *model.blocks, 1e6);
    EXPECT_EQ(costs.points().back().rows, context == 1   ? 1
                                          : context < 64 ? (context < 32 ? 16 : 48)
                                                         : 64)
        << "context " << context;
    EXPECT_EQ(model.blocks->free_blocks(), model.blocks->blocks());
  }
}

TEST(MeasureCosts, WithFewRowsOrBlocks) {
  test::TinyModelOptions options;
  options.max_rows = 6;
  test::TinyModel narrow(options);
  EXPECT_EQ(Rows(MeasureCosts(*narrow.target, *narrow.blocks)), (std::vector<int>{1, 2, 3, 4, 5, 6}));
  options = {};
  options.blocks = 1;
  test::TinyModel small(options);
  EXPECT_EQ(MeasureCosts(*small.target, *small.blocks).points().back().rows, 16);
}

}  // namespace
}  // namespace dspark

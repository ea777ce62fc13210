#include "engine/cost_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace dspark {
namespace {

TEST(CostTable, InterpolatesAndExtends) {
  const CostTable costs({{1, 2.0}, {4, 5.0}, {8, 4.0}});  // 8 rows cannot cost less than 4
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

TEST(CostTable, SurvivesTheDisk) {
  const auto dir = std::filesystem::temp_directory_path() / "dspark-cost-table-test";
  std::filesystem::remove_all(dir);
  const std::string path = (dir / "sub" / "costs.json").string();
  EXPECT_FALSE(LoadCosts(path).ok());
  ASSERT_TRUE(SaveCosts(path, CostTable({{1, 1.25}, {4, 2.5}})).ok());
  const auto loaded = LoadCosts(path);
  ASSERT_TRUE(loaded.ok());
  EXPECT_DOUBLE_EQ(loaded->Ms(4), 2.5);
  for (const char* bad :
       {"", "[]", "{\"ms_by_rows\": []}", "{\"ms_by_rows\": [[1]]}", "{\"ms_by_rows\": [[1, -2]]}",
        "{\"ms_by_rows\": [[4, 1], [1, 2]]}", "{\"ms_by_rows\": [[1, \"x\"]]}"}) {
    std::ofstream(path) << bad;
    EXPECT_FALSE(LoadCosts(path).ok()) << bad;
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace dspark

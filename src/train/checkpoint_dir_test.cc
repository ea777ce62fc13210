#include "train/checkpoint_dir.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "temp_dir.h"

namespace dspark::test {
namespace {

namespace fs = std::filesystem;

class CheckpointDir : public testing::Test {
 protected:
  void MakeStep(int step, bool whole = true) {
    const fs::path path = fs::path(dir()) / ("step_" + std::to_string(step));
    fs::create_directories(path);
    std::ofstream(path / "training.json") << "{}";
    if (whole) std::ofstream(path / "training.safetensors") << "x";
  }
  void Link(const std::string& to) {
    fs::remove(fs::path(dir()) / "step_latest");
    fs::create_directory_symlink(to, fs::path(dir()) / "step_latest");
  }
  bool Has(int step) const { return fs::exists(dir() + "/step_" + std::to_string(step)); }
  std::string Found() const { return fs::path(FindCheckpoint(dir()).value()).filename(); }
  const std::string& dir() const { return dir_.path(); }

 private:
  TempDir dir_;
};

TEST_F(CheckpointDir, TheLinkSaysWhichIsTheNewest) {
  EXPECT_EQ(Found(), "");
  MakeStep(9);
  MakeStep(10);
  MakeStep(11);
  Link("step_10");
  EXPECT_EQ(Found(), "step_latest");
}

TEST_F(CheckpointDir, WithoutALinkTheHighestWholeStepIs) {
  MakeStep(9);
  MakeStep(10);
  MakeStep(11, false);
  fs::create_directories(dir() + "/step_12.tmp");
  fs::create_directories(dir() + "/step_99999999999999999999");
  EXPECT_EQ(Found(), "step_10");
  Link("step_8");  // leads nowhere
  EXPECT_EQ(Found(), "step_10");
  Link("step_11");
  EXPECT_EQ(Found(), "step_10");
}

TEST_F(CheckpointDir, StepsThatAreNotWholeAreNoReasonToStartAnew) {
  MakeStep(3, false);
  const auto found = FindCheckpoint(dir());
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().text.find("step_3"), std::string::npos) << found.error().text;
}

TEST_F(CheckpointDir, TheStepJustWrittenStays) {
  for (const int step : {1, 2, 8, 9, 10}) MakeStep(step);
  RemoveOldCheckpoints(dir(), 2, 2);
  EXPECT_TRUE(Has(2));
  EXPECT_TRUE(Has(10));
  EXPECT_FALSE(Has(1) || Has(8) || Has(9));
  RemoveOldCheckpoints(dir(), 2, 1);
  EXPECT_TRUE(Has(2));
  EXPECT_FALSE(Has(10));
}

}  // namespace
}  // namespace dspark::test

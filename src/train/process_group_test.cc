#include "train/process_group.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>

#include "test_data.h"
#include "train_processes.h"

namespace dspark::test {
namespace {

constexpr char kChild[] = "DSPARK_TEST_GROUP";

// What the tests start: "WHAT RANK WORLD PORT". Prints its results.
TEST(ProcessGroup, Child) {
  const std::string what = FromEnvironment(kChild, "");
  if (what.empty()) return;
  const ProcessPlace place = PlaceFromEnvironment();
  // Who is dead never answers; all others do, however busy the machine.
  const auto inquiry = std::chrono::seconds(what.ends_with("dies") ? 5 : 60);
  auto joined = ProcessGroup::Join(place, {.join = std::chrono::seconds(60), .inquiry = inquiry});
  ASSERT_TRUE(joined.ok()) << joined.error().text;
  ProcessGroup group = std::move(joined).value();
  const int last = group.world() - 1;
  for (int round = 0; round < 3; ++round) {
    if (round == 2 && what == "leaves" && group.rank() == last) {
      group.Leave("the disk is full");
      return;
    }
    if (round == 2 && what == "first leaves" && group.rank() == 0) {
      group.Leave("no such file");
      return;
    }
    if (round == 2 && what == "dies" && group.rank() == last) raise(SIGKILL);
    if (round == 2 && what == "first dies" && group.rank() == 0) raise(SIGKILL);
    const at::Tensor tensor = at::full({3}, float(group.rank() + 1));
    const Status summed = group.Sum({tensor});
    if (!summed.ok()) return WriteResult(summed.error().text);
    double firsts = 10.0 * group.rank() + 7;
    ASSERT_TRUE(group.TakeFirsts({&firsts, 1}).ok());
    ASSERT_EQ(firsts, 7);
    ASSERT_EQ(tensor.sum().item<float>(), 3.0f * float(group.world() * (group.world() + 1)) / 2);
  }
  ASSERT_EQ(group.FirstsText("key", "text " + std::to_string(group.rank())).value(), "text 0");
  WriteResult("done");
}

class ProcessGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  }
  // What each of three processes said, and within how many seconds all had ended.
  std::vector<std::string> Run(const char* what) {
    const auto start = std::chrono::steady_clock::now();
    Processes processes(3, "ProcessGroup.Child", {{kChild, what}});
    processes.Wait();
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return processes.results();
  }
  double seconds_ = 0;
};

TEST_F(ProcessGroupTest, SumsAndFirsts) {
  for (const std::string& said : Run("works")) EXPECT_EQ(said, "done");
}

constexpr char kCure[] = "; start all processes again: the run goes on from the last checkpoint";

TEST_F(ProcessGroupTest, SaysWhyOneLeft) {
  const auto said = Run("leaves");
  EXPECT_EQ(said[0], std::string("rank 2 ended: the disk is full") + kCure);
  EXPECT_EQ(said[1], said[0]);
}

TEST_F(ProcessGroupTest, SaysWhyTheFirstLeft) {
  const auto said = Run("first leaves");
  EXPECT_EQ(said[1], std::string("rank 0 ended: no such file") + kCure);
  EXPECT_EQ(said[2], said[1]);
}

TEST_F(ProcessGroupTest, SaysWhichOneDied) {
  const auto said = Run("dies");
  EXPECT_EQ(said[0], std::string("rank 2 is gone without a word (killed, or its machine is)") + kCure);
  EXPECT_EQ(said[1], said[0]);
  EXPECT_LT(seconds_, 60);
}

TEST_F(ProcessGroupTest, SaysThatTheFirstDied) {
  const auto said = Run("first dies");
  for (const int rank : {1, 2})
    EXPECT_TRUE(said[size_t(rank)].starts_with("rank 0 is gone")) << said[size_t(rank)];
}

TEST_F(ProcessGroupTest, WaitsOnlySoLongForTheOthers) {
  ProcessPlace place;
  place.world = 2;
  place.host = "127.0.0.1";
  place.port = FreePort();
  const auto joined = ProcessGroup::Join(place, {.join = std::chrono::seconds(2)});
  ASSERT_FALSE(joined.ok());
  EXPECT_TRUE(joined.error().text.starts_with("rank 0 of 2 did not meet the others at 127.0.0.1:"))
      << joined.error().text;
  EXPECT_NE(joined.error().text.find("within 2 s"), std::string::npos);
}

TEST(ProcessGroup, AloneNothingHappens) {
  ProcessGroup group;
  double number = 3;
  EXPECT_TRUE(group.Sum({&number, 1}).ok());
  EXPECT_TRUE(group.TakeFirsts({&number, 1}).ok());
  EXPECT_EQ(number, 3);
  EXPECT_EQ(group.FirstsText("key", "mine").value(), "mine");
  group.Leave("nobody hears it");
}

}  // namespace
}  // namespace dspark::test

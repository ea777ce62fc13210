#include "train/schedule.h"

#include <gtest/gtest.h>

#include "core/mapped_file.h"
#include "load/json_file.h"
#include "load/safetensors.h"
#include "test_data.h"
#include "train/anchors.h"

namespace dspark::test {
namespace {

const nlohmann::json& Golden() {
  static const nlohmann::json json = ReadJsonObject(GoldenDir() + "/drafters/train_schedule.json").value();
  return json;
}

TEST(GoldenTrainSchedule, LearningRate) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  for (const auto& [total, run] : Golden()["lr_schedule"].items()) {
    const LearningRate rate = LearningRate::Recipe(run["base_lr"], std::stoll(total));
    EXPECT_EQ(rate.warmup, run["warmup_steps"].get<int64_t>());
    for (size_t i = 0; i < run["steps"].size(); ++i) {
      const double expected = run["lr_used_at_step"][i];
      EXPECT_NEAR(rate.At(run["steps"][i]), expected, 1e-9 * expected + 1e-15) << total << " step " << i;
    }
  }
}

TEST(GoldenTrainSchedule, AnchorsOfGivenKeys) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  const std::string path = GoldenDir() + "/drafters/train_samples.safetensors";
  const MappedFile file = MappedFile::Open(path).value();
  const Safetensors tensors = ParseSafetensors(file.bytes(), path).value();
  for (const auto& [name, run] : Golden()["anchor_sampler"].items()) {
    SCOPED_TRACE(name);
    const auto mask = tensors.Find(name.substr(0, name.find('.')) + ".loss_mask")->bytes;
    const std::vector<float> keys = run["keys"];
    const std::vector<int> anchors = SampleAnchors(mask, keys, run["num_anchors"]);
    std::vector<int> expected;
    for (size_t i = 0; i < run["valid"].size(); ++i) {
      if (run["valid"][i]) expected.push_back(run["anchors"][i]);
    }
    EXPECT_EQ(anchors, expected);
  }
}

TEST(GoldenTrainSchedule, DataOrder) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  const auto& golden = Golden()["data_order"];
  const auto& permutations = golden["epoch_permutations_of_13_seed42+e"];
  for (size_t e = 0; e < permutations.size(); ++e) {
    EXPECT_EQ(TorchPermutation(13, 42 + e), permutations[e].get<std::vector<int64_t>>());
  }
  DataOrder order(13, 4);
  EXPECT_EQ(order.steps_per_epoch(), 3);
  std::vector<int64_t> stream;
  for (int step = 0; step < 4; ++step) {
    for (const int64_t i : order.Batch(step)) stream.push_back(i);
  }
  EXPECT_EQ(stream, golden["dataset13_total12_world1_rank0_offset0"].get<std::vector<int64_t>>());
}

TEST(TrainSchedule, WarmsUpAndEndsAtZero) {
  const LearningRate rate{1.0, 50, 10};
  for (int step = 1; step < 10; ++step) EXPECT_GT(rate.At(step), rate.At(step - 1));
  for (int step = 11; step < 50; ++step) EXPECT_LT(rate.At(step), rate.At(step - 1));
  EXPECT_DOUBLE_EQ(rate.At(9), 1.0);
  EXPECT_NEAR(rate.At(50), 0, 1e-12);
}

TEST(Anchors, NeedTwoSupervisedTokensInARow) {
  const std::vector<uint8_t> mask = {1, 0, 1, 1, 1, 0, 1};
  EXPECT_EQ(AnchorCandidates(mask), (std::vector<int>{2, 3}));
  EXPECT_TRUE(AnchorCandidates({}).empty());
}

TEST(Anchors, KeysDependOnSampleAndEpoch) {
  const auto keys = AnchorKeys(1, 2, 3, 100);
  ASSERT_EQ(keys.size(), 99u);
  EXPECT_EQ(keys, AnchorKeys(1, 2, 3, 100));
  for (const auto& other : {AnchorKeys(2, 2, 3, 100), AnchorKeys(1, 3, 3, 100), AnchorKeys(1, 2, 4, 100)}) {
    EXPECT_NE(keys, other);
  }
}

TEST(Anchors, SlotsAreInvalidFromTheFirstUnsupervisedTokenOn) {
  const std::vector<int32_t> ids = {5, 6, 7, 8, 9, 10};
  const std::vector<uint8_t> mask = {0, 1, 1, 0, 1, 1};
  const std::vector<int> anchors = {1, 4};
  const BlockSlots slots = MakeBlockSlots(ids, mask, anchors, 4, 4.0f);
  EXPECT_EQ(slots.labels, (std::vector<int32_t>{7, 8, 9, 10, 10, 10, 10, 10}));
  EXPECT_EQ(slots.previous, (std::vector<int32_t>{6, 7, 8, 9, 9, 10, 10, 10}));
  EXPECT_EQ(slots.valid, (std::vector<uint8_t>{1, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(slots.WeightSum(), 2);
}

}  // namespace
}  // namespace dspark::test

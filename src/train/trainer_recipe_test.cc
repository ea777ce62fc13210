// What a step makes of its samples: which anchors, which denominators, which vocabulary.
#include <gtest/gtest.h>

#include <cmath>

#include "fixed_source.h"
#include "load/drafter_files.h"
#include "temp_dir.h"
#include "tiny_gguf.h"
#include "train/anchors.h"
#include "train/trainer.h"

namespace dspark::test {
namespace {

class TrainerRecipe : public testing::Test {
 protected:
  TrainerRecipe()
      : target_(OpenModel(WriteTinyLlamaGguf(dir_.path(), 3, TinyLlama{.layers = 4})).value()),
        source_(target_.config, {0, 1}) {
    config_.taps = {0, 1};
    config_.layers = 1;
    config_.markov_rank = 8;
    config_.block_size = 4;
    config_.precision = "f32";
    config_.learning_rate = 0;  // every step sees the same weights
    config_.threads = 1;
    config_.batch = config_.group = 1;
  }
  std::unique_ptr<Trainer> Make() { return Trainer::Make(config_, target_, source_).value(); }
  StepReport FirstStep(int batch, int group) {
    config_.batch = batch;
    config_.group = group;
    return Make()->Step().value();
  }
  // Σ w of a sample all of whose anchors are taken.
  double WeightOf(int64_t sample) const {
    const TrainSample& s = source_.sample(sample);
    return MakeBlockSlots(s.ids, s.loss_mask, AnchorCandidates(s.loss_mask), 4, float(config_.decay))
        .WeightSum();
  }

  TempDir dir_;
  ModelFiles target_;
  FixedSource source_;
  TrainConfig config_;
};

// drafters.md §4: one denominator for the samples of a group, then the mean over groups.
TEST_F(TrainerRecipe, SamplesOfAGroupShareOneDenominator) {
  source_.AddCounting(60, 3);
  source_.AddCounting(9, 150);
  const auto trainer = Make();
  std::vector<StepReport> alone = {trainer->Step().value(), trainer->Step().value()};
  if (alone[0].anchors < alone[1].anchors) std::swap(alone[0], alone[1]);
  const double a = alone[0].loss, b = alone[1].loss, wa = WeightOf(0), wb = WeightOf(1);
  const double together = (wa * a + wb * b) / (wa + wb), mean = (a + b) / 2;
  ASSERT_GT(std::abs(together - mean), 0.01);
  EXPECT_NEAR(FirstStep(2, 2).loss, together, 1e-4);
  EXPECT_NEAR(FirstStep(2, 1).loss, mean, 1e-4);
}

TEST_F(TrainerRecipe, GradientsAreMeansOverGroups) {
  for (int i = 0; i < 4; ++i) source_.AddCounting(20, 3);  // one sample, four times
  const StepReport whole = FirstStep(4, 4), parts = FirstStep(4, 1);
  EXPECT_NEAR(parts.loss, whole.loss, 1e-4);
  ASSERT_GT(whole.grad_norm, 0.01);
  EXPECT_NEAR(parts.grad_norm / whole.grad_norm, 1, 1e-4);
}

TEST_F(TrainerRecipe, EveryEpochHasAnchorsOfItsOwn) {
  source_.AddCounting(200, 3);
  config_.epochs = 2;
  config_.anchors = 2;
  const auto some = Make();
  const double first = some->Step().value().loss;
  EXPECT_GT(std::abs(some->Step().value().loss - first), 1e-3);
  config_.anchors = 512;  // all there are
  const auto all = Make();
  EXPECT_EQ(all->Step().value().loss, all->Step().value().loss);
}

TEST_F(TrainerRecipe, EpochsOrStepsSetTheLength) {
  for (int i = 0; i < 5; ++i) source_.AddCounting(20, 3);
  config_.batch = config_.group = 2;
  config_.epochs = 3;
  EXPECT_EQ(Make()->total_steps(), 6);  // two a time, the fifth left out
  config_.steps = 4;
  EXPECT_EQ(Make()->total_steps(), 4);
}

TEST_F(TrainerRecipe, AReducedVocabularyIsTheAnswersMostFrequentIds) {
  source_.Add({100, 100, 100, 100, 250, 200, 200}, {0, 0, 0, 0, 1, 1, 1});
  source_.Add({100, 100, 201, 200, 201, 130}, {0, 0, 1, 1, 1, 0});
  config_.draft_vocab = 2;
  EXPECT_EQ(Make()->drafter().draft_to_target, (std::vector<int32_t>{200, 201}));
  config_.draft_vocab = 5;  // two more than occur
  EXPECT_EQ(Make()->drafter().draft_to_target, (std::vector<int32_t>{0, 1, 200, 201, 250}));
}

TEST_F(TrainerRecipe, AReducedVocabularyIsReadBack) {
  source_.Add({100, 250, 200, 200}, {0, 1, 1, 1});
  config_.draft_vocab = 5;
  const auto trainer = Make();
  ASSERT_TRUE(trainer->Save(dir_.path() + "/out").ok());
  const auto files = OpenDrafter(dir_.path() + "/out/step_latest");
  ASSERT_TRUE(files.ok()) << files.error().text;
  EXPECT_EQ(files->config.draft_to_target, (std::vector<int32_t>{0, 1, 2, 200, 250}));
}

TEST_F(TrainerRecipe, GoesOnWithTheSameDataOnly) {
  for (int i = 0; i < 3; ++i) source_.AddCounting(20, 3);
  const std::string out = dir_.path() + "/out";
  ASSERT_TRUE(Make()->Save(out).ok());
  EXPECT_TRUE(Make()->Resume(out).value());
  source_ = FixedSource(target_.config, {0, 1});
  for (const int first : {3, 3, 4}) source_.AddCounting(20, first);  // as many, as long
  const auto other = Make()->Resume(out);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().text.find("other data"), std::string::npos) << other.error().text;
}

TEST_F(TrainerRecipe, GoesOnWhereTheLinkIsLost) {
  for (int i = 0; i < 3; ++i) source_.AddCounting(20, 3);
  const std::string out = dir_.path() + "/out";
  const auto trainer = Make();
  ASSERT_TRUE(trainer->Step().ok());
  ASSERT_TRUE(trainer->Save(out).ok());
  std::filesystem::remove(out + "/step_latest");
  const auto again = Make();
  EXPECT_TRUE(again->Resume(out).value());
  EXPECT_EQ(again->step(), 1);
}

TEST_F(TrainerRecipe, NamesSettingsThatTheTargetDoesNotHave) {
  const auto expect = [&](const std::string& what) {
    const auto drafter = DrafterFor(config_, target_.config);
    ASSERT_FALSE(drafter.ok());
    EXPECT_NE(drafter.error().text.find(what), std::string::npos) << drafter.error().text;
    EXPECT_EQ(drafter.error().text.find("damaged"), std::string::npos) << drafter.error().text;
  };
  for (const std::vector<int>& taps : {std::vector<int>{29}, {0, 3}, {1, 0}, {1, 1}, {-2}}) {
    config_.taps = taps;
    expect("taps is [" + std::to_string(taps[0]));
  }
  config_.taps = {-1, 2};
  EXPECT_TRUE(DrafterFor(config_, target_.config).ok());
  config_.mask_token = target_.config.vocab;
  expect("mask_token");
}

// An untrained drafter gives every token next to nothing: of four slots the first then weighs 15/16, the
// others 7/16, 3/16 and 1/16, over the denominators of exp(-j / 4).
TEST_F(TrainerRecipe, DpaceWeighsCrossEntropyByWhatIsReached) {
  source_.AddCounting(60, 3);
  config_.ce_share = 1;
  config_.l1_share = config_.confidence_share = 0;
  const StepReport fixed = FirstStep(1, 1);
  config_.slot_weights = "dpace";
  const StepReport dpace = FirstStep(1, 1);
  EXPECT_EQ(dpace.metrics.Ce(), fixed.metrics.Ce());
  EXPECT_NEAR(dpace.loss / fixed.loss, 26.0 / 16 / (1 + std::exp(-0.25) + std::exp(-0.5) + std::exp(-0.75)),
              0.02);
}

TEST_F(TrainerRecipe, ConfidenceKeepsTheFixedWeightsUnderDpace) {
  source_.AddCounting(60, 3);
  config_.ce_share = config_.l1_share = 0;
  config_.confidence_share = 1;
  const StepReport fixed = FirstStep(1, 1);
  config_.slot_weights = "dpace";
  EXPECT_GT(fixed.loss, 0.1);
  EXPECT_NEAR(FirstStep(1, 1).loss, fixed.loss, 1e-6);
}

}  // namespace
}  // namespace dspark::test

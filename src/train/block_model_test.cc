#include "train/block_model.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "golden_train_sample.h"
#include "load/json_file.h"
#include "test_data.h"
#include "train/adamw.h"
#include "train/block_metrics.h"
#include "train/schedule.h"

namespace dspark::test {
namespace {

constexpr double kTolerance = 1e-5;

std::string GoldenPath(const std::string& name) { return GoldenDir() + "/drafters/" + name; }

// A golden drafter with the target whose embedding and head it has.
struct GoldenRun {
  explicit GoldenRun(const std::string& name)
      : files(OpenDrafter(GoldenPath(name)).value()),
        golden(GoldenPath("train_" + name + ".safetensors")),
        samples(GoldenPath("train_samples.safetensors")),
        json(ReadJsonObject(GoldenPath("train_" + name + ".json")).value()),
        run{.config = files.config,
            .frozen = LoadFrozen(*files.weights, files.config, torch::kFloat32).value(),
            .draft_head = {},
            .precision = torch::kFloat32,
            .shares = files.config.markov == MarkovHead::kNone ? LossShares{1, 0, 0} : LossShares{}},
        parameters(files.config, torch::kFloat32, 1, run.frozen.head) {
    EXPECT_TRUE(parameters.Load(*files.weights).ok());
    run.draft_head = parameters.draft_head();
    weights = parameters.MakeWeights();
  }
  TrainSample Sample(const std::string& name) const {
    return GoldenTrainSample(samples, name, run.config.taps);
  }
  BlockSlots Slots(const std::string& name, const TrainSample& sample) const {
    const auto anchors = golden.Ints(name + ".anchors");
    const auto valid = golden.Find(name + ".anchor_valid").bytes;
    std::vector<int> real;
    for (size_t i = 0; i < anchors.size(); ++i) {
      if (valid[i]) real.push_back(anchors[i]);
    }
    return MakeBlockSlots(sample.ids, sample.loss_mask, real, run.config.block_size, 4.0f);
  }
  BlockLoss Loss(const std::string& name) {
    const TrainSample sample = Sample(name);
    const BlockSlots slots = Slots(name, sample);
    if (slots.blocks == 0) return {};
    return ComputeBlockLoss(run, weights, sample, slots, slots.WeightSum() + 1e-6);
  }

  DrafterFiles files;
  GoldenTensors golden, samples;
  nlohmann::json json;
  BlockRun run;
  Parameters parameters;
  Weights weights;
};

class GoldenTrain : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters"); }
};

INSTANTIATE_TEST_SUITE_P(Drafters, GoldenTrain,
                         testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash"),
                         [](const auto& drafter) { return std::string(drafter.param); });

TEST_P(GoldenTrain, LossOfEverySample) {
  GoldenRun g(GetParam());
  for (const std::string name : {"main", "tail", "few", "none", "zero"}) {
    SCOPED_TRACE(name);
    const BlockLoss loss = g.Loss(name);
    const double total = g.json["samples"][name]["losses"]["total"];
    EXPECT_NEAR(loss.total.defined() ? loss.total.item<double>() : 0, total, kTolerance);
  }
}

TEST_P(GoldenTrain, ValuesOfEverySlot) {
  GoldenRun g(GetParam());
  for (const std::string name : {"main", "tail", "few"}) {
    SCOPED_TRACE(name);
    const BlockLoss loss = g.Loss(name);
    const auto expect = [&](const std::string& what, const torch::Tensor& ours) {
      if (!ours.defined()) return;
      const auto golden = g.golden.Floats(name + "." + what);
      for (size_t i = 0; i < loss.values.slots.size(); ++i) {
        EXPECT_NEAR(ours[int64_t(i)].item<double>(), golden[size_t(loss.values.slots[i])], 1e-4) << what << i;
      }
    };
    const auto mask = g.golden.Find(name + ".eval_mask").bytes;
    EXPECT_EQ(int64_t(loss.values.slots.size()), std::ranges::count(mask, uint8_t(1)));
    expect("ce", loss.values.ce);
    expect("l1", loss.values.l1);
    expect("confidence_logits", loss.values.confidence);
    expect("confidence_bce", loss.values.confidence_bce);
  }
}

TEST_P(GoldenTrain, Gradients) {
  GoldenRun g(GetParam());
  g.Loss("main").total.backward();
  int compared = 0;
  for (const auto& [name, weight] : g.weights) {
    SCOPED_TRACE(name);
    const std::vector<float> expected = g.golden.Floats("main.grad." + name);
    ASSERT_TRUE(weight.leaf.grad().defined());
    const torch::Tensor difference = weight.leaf.grad().flatten() - torch::tensor(expected);
    EXPECT_LT(difference.abs().max().item<double>(), kTolerance);
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

// Golden data have only the norms of these.
TEST_P(GoldenTrain, GradientNormsOfOtherSamples) {
  GoldenRun g(GetParam());
  for (const std::string name : {"tail", "few"}) {
    g.weights = g.parameters.MakeWeights();
    g.Loss(name).total.backward();
    double sum = 0;
    for (const auto& [_, weight] : g.weights) sum += weight.leaf.grad().square().sum().item<double>();
    EXPECT_NEAR(std::sqrt(sum), g.json["samples"][name]["grad_norm_total"].get<double>(), 1e-4) << name;
  }
}

TEST_P(GoldenTrain, Metrics) {
  GoldenRun g(GetParam());
  for (const std::string name : {"main", "tail", "few"}) {
    SCOPED_TRACE(name);
    const SlotValues values = g.Loss(name).values;
    const TrainSample sample = g.Sample(name);
    BlockMetrics metrics(g.run.config.block_size);
    const float* confidence = values.confidence.defined() ? values.confidence.data_ptr<float>() : nullptr;
    metrics.Add(g.Slots(name, sample), values.slots, values.ce.data_ptr<float>(), values.l1.data_ptr<float>(),
                confidence);
    const auto& golden = g.json["samples"][name]["metrics"];
    for (int k = 0; k < 7; ++k) {
      EXPECT_NEAR(metrics.AcceptRate(k), golden[fmt::format("train/accept_rate@{}", k)].get<double>(), 1e-4);
    }
    EXPECT_NEAR(metrics.Tau(), golden["train/tau_probabilistic"].get<double>(), 1e-4);
    EXPECT_NEAR(metrics.Ce(), golden["train/ce_loss"].get<double>(), 1e-4);
    if (!confidence) continue;
    EXPECT_NEAR(metrics.L1(), golden["train/l1_loss"].get<double>(), 1e-4);
    EXPECT_NEAR(metrics.ConfidenceError(), golden["train/confidence_abs_error"].get<double>(), 1e-4);
    EXPECT_NEAR(metrics.ConfidenceBias(), golden["train/confidence_bias"].get<double>(), 1e-4);
    EXPECT_NEAR(metrics.ConfidenceCumprodBias(), golden["train/confidence_cumprod_bias"].get<double>(), 1e-4);
  }
}

std::vector<torch::Tensor> GradientsOf(const GoldenRun& g) {
  std::vector<torch::Tensor> gradients;
  for (const Parameter& p : g.parameters.all())
    gradients.push_back(g.weights.find(p.name)->second.leaf.grad().clone());
  return gradients;
}

TEST_P(GoldenTrain, ParametersAfterOneStep) {
  GoldenRun g(GetParam());
  AdamW adam(&g.parameters, {});
  g.Loss("main").total.backward();
  std::vector<torch::Tensor> gradients = GradientsOf(g);
  const std::vector<torch::Tensor> before = GradientsOf(g);
  const double norm = adam.Step(gradients, LearningRate::Recipe(6e-4, 100).At(0));
  EXPECT_NEAR(norm, g.json["samples"]["main"]["grad_norm_total"].get<double>(), 1e-4);
  const std::string path = GoldenPath(std::string("train_") + GetParam() + ".safetensors");
  const MappedFile file = MappedFile::Open(path).value();
  const Safetensors stored = ParseSafetensors(file.bytes(), path).value();
  int compared = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Parameter& p = g.parameters.all()[i];
    const std::string name = "main.param_after_step1." + p.name;
    if (!stored.Find(name)) continue;  // the golden data leave some out
    SCOPED_TRACE(p.name);
    const torch::Tensor off = (p.master.flatten() - torch::tensor(g.golden.Floats(name))).abs();
    // The first step is lr * sign(g): where g is nearly 0, so may the step be.
    const torch::Tensor clear = gradients[i].flatten().abs() > 1e-6;
    EXPECT_LT(off.masked_select(clear).max().item<double>(), 1e-6);
    EXPECT_LE(off.max().item<double>(), 3.1e-4);
    ++compared;
  }
  EXPECT_GE(compared, 3);
}

TEST_P(GoldenTrain, TenSteps) {
  GoldenRun g(GetParam());
  AdamW adam(&g.parameters, {});
  const LearningRate rate = LearningRate::Recipe(6e-4, 100);
  for (const auto& step : g.json["trace_10_steps"]) {
    SCOPED_TRACE(step["step"].get<int>());
    g.weights = g.parameters.MakeWeights();
    const BlockLoss loss = g.Loss("main");
    EXPECT_NEAR(loss.total.item<double>(), step["loss"].get<double>(), 1e-3);
    loss.total.backward();
    std::vector<torch::Tensor> gradients = GradientsOf(g);
    const double norm = adam.Step(gradients, rate.At(step["step"]));
    EXPECT_NEAR(norm, step["grad_norm_before_clip"].get<double>(), 1e-2);
  }
  EXPECT_NEAR(g.Loss("main").total.item<double>(), g.json["loss_after_10_steps"].get<double>(), 1e-3);
}

}  // namespace
}  // namespace dspark::test

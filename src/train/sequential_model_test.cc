#include "train/sequential_model.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "core/rng.h"
#include "draft/random_weights.h"
#include "golden_train_sample.h"
#include "load/drafter_json.h"
#include "load/json_file.h"
#include "sequential_fixture.h"
#include "test_data.h"
#include "train/adamw.h"
#include "train/schedule.h"
#include "train/sequential_trainable.h"

namespace dspark::test {
namespace {

constexpr double kTolerance = 1e-5;

// A drafter with the target whose embedding and head it has.
struct TrainedModel {
  TrainedModel(const DrafterConfig& config, const TensorSource& target, const TensorSource& drafter)
      : run{.config = config,
            .frozen = LoadFrozen(target, config, torch::kFloat32).value(),
            .draft_head = {},
            .precision = torch::kFloat32,
            .shares = {1, 0, 0}},
        parameters(config, torch::kFloat32, 1, run.frozen.head) {
    const Status loaded = parameters.Load(drafter);
    if (!loaded) CheckFailed(__FILE__, __LINE__, loaded.error().text);
    run.draft_head = parameters.draft_head();
    weights = parameters.MakeWeights();
  }
  StepRows Rows(const TrainSample& sample, double decay = 0.8) const {
    return ChooseRows(run.config.kind, sample.loss_mask, run.config.block_size, decay);
  }
  SequentialLoss Loss(const TrainSample& sample, double decay = 0.8) {
    const StepRows rows = Rows(sample, decay);
    return ComputeSequentialLoss(run, weights, sample, rows, rows.weight);
  }
  // Logits [n, Vd] of a step's states.
  torch::Tensor Logits(const torch::Tensor& states) const {
    return HeadInput(run, weights, states).mm(run.draft_head.t()).detach();
  }
  std::vector<torch::Tensor> Gradients() const {
    std::vector<torch::Tensor> gradients;
    for (const Parameter& p : parameters.all())
      gradients.push_back(weights.find(p.name)->second.leaf.grad().clone());
    return gradients;
  }

  SequentialRun run;
  Parameters parameters;
  Weights weights;
};

std::string GoldenPath(const std::string& name) { return GoldenDir() + "/drafters/" + name; }

class GoldenTrainEagle3 : public testing::Test {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
    files_ = OpenDrafter(GoldenPath("eagle3")).value();
    golden_ = std::make_unique<GoldenTensors>(GoldenPath("train_eagle3.safetensors"));
    samples_ = std::make_unique<GoldenTensors>(GoldenPath("train_samples.safetensors"));
    json_ = ReadJsonObject(GoldenPath("train_eagle3.json")).value();
    model_ = std::make_unique<TrainedModel>(files_.config, *files_.weights, *files_.weights);
  }
  TrainSample Sample(const std::string& name) const {
    return GoldenTrainSample(*samples_, name, files_.config.taps);
  }
  torch::Tensor Golden(const std::string& name) const {
    return torch::tensor(golden_->Floats(name)).view(golden_->Find(name).shape);
  }
  static double MaxDifference(const torch::Tensor& a, const torch::Tensor& b) {
    return (a - b).abs().max().item<double>();
  }

  DrafterFiles files_;
  std::unique_ptr<GoldenTensors> golden_, samples_;
  nlohmann::json json_;
  std::unique_ptr<TrainedModel> model_;
};

TEST_F(GoldenTrainEagle3, LossOfEverySample) {
  for (const std::string name : {"main", "tail", "few", "none", "zero"}) {
    const torch::Tensor total = model_->Loss(Sample(name)).total;
    const double expected = json_["samples"][name]["losses"]["total"];
    EXPECT_NEAR(total.defined() ? total.item<double>() : 0, expected, kTolerance) << name;
  }
}

TEST_F(GoldenTrainEagle3, RowsThatCountAndTheirCrossEntropy) {
  for (const std::string name : {"main", "tail", "few", "none", "zero"}) {
    SCOPED_TRACE(name);
    const TrainSample sample = Sample(name);
    const StepRows rows = model_->Rows(sample);
    const SequentialLoss loss = model_->Loss(sample);
    const torch::Tensor expected = Golden(name + ".row_ce"), valid = Golden(name + ".row_valid");
    EXPECT_EQ(double(loss.at.size()), valid.sum().item<double>());
    for (size_t i = 0; i < loss.at.size(); ++i) {
      const int64_t row = rows.rows[size_t(loss.at[i] / rows.steps)], step = loss.at[i] % rows.steps;
      EXPECT_EQ(valid[step][row].item<float>(), 1);
      EXPECT_NEAR(loss.ce[int64_t(i)].item<double>(), expected[step][row].item<double>(), 1e-4);
    }
  }
}

TEST_F(GoldenTrainEagle3, StatesAndLogitsOfEveryStep) {
  for (const std::string name : {"main", "tail", "few", "none"}) {
    SCOPED_TRACE(name);
    const TrainSample sample = Sample(name);
    const StepRows rows = model_->Rows(sample);
    const auto states = SequentialStates(model_->run, model_->weights, sample, rows);
    const torch::Tensor golden_states = Golden(name + ".states"), logits = Golden(name + ".draft_logits"),
                        teacher = Golden(name + ".teacher_probs");
    const torch::Tensor last = torch::tensor(sample.last_hidden).view({-1, golden_states.size(2)});
    const std::vector<int32_t> picked = golden_->Ints(name + ".picked_rows");
    int compared = 0;
    for (size_t i = 0; i < picked.size(); ++i) {
      const auto row = std::ranges::find(rows.rows, int64_t(picked[i])) - rows.rows.begin();
      for (int k = 0; k < rows.steps && row < std::ssize(rows.rows); ++k) {
        if (!rows.valid[size_t(rows.at(size_t(row), k))]) continue;
        const auto golden = [&](const torch::Tensor& t) { return t[k][int64_t(i)]; };
        EXPECT_LT(MaxDifference(states[size_t(k)][row], golden(golden_states)), 1e-4);
        EXPECT_LT(MaxDifference(model_->Logits(states[size_t(k)])[row], golden(logits)), 1e-4);
        const torch::Tensor q = last[picked[i] + 1 + k].matmul(model_->run.frozen.head.t()).softmax(-1);
        EXPECT_LT(MaxDifference(q, golden(teacher)), 1e-4);
        ++compared;
      }
    }
    EXPECT_GE(compared, name == "none" ? 3 : 7);
  }
}

TEST_F(GoldenTrainEagle3, Gradients) {
  model_->Loss(Sample("main")).total.backward();
  ASSERT_EQ(model_->weights.size(), 14u);
  for (const auto& [name, weight] : model_->weights) {
    ASSERT_TRUE(weight.leaf.grad().defined()) << name;
    EXPECT_LT(MaxDifference(weight.leaf.grad(), Golden("main.grad." + name)), kTolerance) << name;
  }
}

// Golden data have only the norms of these.
TEST_F(GoldenTrainEagle3, GradientNormsOfOtherSamples) {
  for (const std::string name : {"tail", "few", "none"}) {
    model_->weights = model_->parameters.MakeWeights();
    model_->Loss(Sample(name)).total.backward();
    for (const auto& [tensor, expected] : json_["samples"][name]["grad_norm_per_tensor"].items()) {
      const torch::Tensor gradient = model_->weights.find(tensor)->second.leaf.grad();
      EXPECT_NEAR(gradient.norm().item<double>(), expected.get<double>(), 1e-4) << name << " " << tensor;
    }
  }
}

TEST_F(GoldenTrainEagle3, Metrics) {
  for (const std::string name : {"main", "tail", "few", "none"}) {
    SCOPED_TRACE(name);
    const TrainSample sample = Sample(name);
    BlockMetrics metrics(7);
    AddMetrics(model_->Rows(sample), model_->Loss(sample), &metrics);
    const auto& golden = json_["samples"][name]["metrics"];
    for (int k = 0; k < 7; ++k) {
      EXPECT_NEAR(metrics.AcceptRate(k), golden[fmt::format("train/accept_rate@{}", k)].get<double>(), 1e-4);
    }
    EXPECT_NEAR(metrics.Tau(), golden["train/tau_probabilistic"].get<double>(), 1e-4);
  }
}

TEST_F(GoldenTrainEagle3, ParametersAfterOneStep) {
  AdamW adam(&model_->parameters, {});
  model_->Loss(Sample("main")).total.backward();
  std::vector<torch::Tensor> gradients = model_->Gradients();
  const std::vector<torch::Tensor> before = model_->Gradients();
  const double norm = adam.Step(gradients, LearningRate::Recipe(6e-4, 100).At(0));
  EXPECT_NEAR(norm, json_["samples"]["main"]["grad_norm_total"].get<double>(), 1e-4);
  for (size_t i = 0; i < before.size(); ++i) {
    const Parameter& p = model_->parameters.all()[i];
    const torch::Tensor off = (p.master - Golden("main.param_after_step1." + p.name)).abs();
    // The first step is lr * sign(g): where the clipped g is nearly 0, so may the step be.
    const torch::Tensor clear = (before[i] / norm).abs() > 1e-6;
    EXPECT_LT(off.masked_select(clear).max().item<double>(), 1e-6) << p.name;
    EXPECT_LE(off.max().item<double>(), 3.1e-4) << p.name;
  }
}

TEST_F(GoldenTrainEagle3, TenSteps) {
  AdamW adam(&model_->parameters, {});
  const LearningRate rate = LearningRate::Recipe(6e-4, 100);
  const TrainSample sample = Sample("main");
  for (const auto& step : json_["trace_10_steps"]) {
    SCOPED_TRACE(step["step"].get<int>());
    model_->weights = model_->parameters.MakeWeights();
    const SequentialLoss loss = model_->Loss(sample);
    EXPECT_NEAR(loss.total.item<double>(), step["loss"].get<double>(), 1e-3);
    loss.total.backward();
    std::vector<torch::Tensor> gradients = model_->Gradients();
    const double norm = adam.Step(gradients, rate.At(step["step"]));
    EXPECT_NEAR(norm, step["grad_norm_before_clip"].get<double>(), 1e-2);
  }
  EXPECT_NEAR(model_->Loss(sample).total.item<double>(), json_["loss_after_10_steps"].get<double>(), 1e-3);
}

constexpr int kWidth = 32, kVocab = 60, kSteps = 3;

ModelConfig Backbone(int layers) {
  ModelConfig config;
  config.layers = layers;
  config.d_model = kWidth;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.d_ffn = 48;
  config.vocab = kVocab;
  config.qk_norm = true;
  return config;
}

DrafterConfig RandomConfig(DrafterKind kind) {
  DrafterConfig config;
  config.kind = kind;
  config.backbone = Backbone(1);
  config.target_width = kWidth;
  config.target_vocab = kVocab;
  config.target_layers = 4;
  config.block_size = kSteps;
  if (kind == DrafterKind::kEagle3) config.taps = {0, 2};
  return config;
}

// Random numbers in ±scale.
std::vector<float> RandomFloats(uint64_t stream, size_t n, float scale) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = (2 * UniformFloat(stream, i, Purpose::kTest) - 1) * scale;
  return values;
}

// Two answers, the second up to the text's end.
TrainSample RandomSample(int length, const DrafterConfig& config) {
  TrainSample sample;
  for (int t = 0; t < length; ++t) {
    sample.ids.push_back(int32_t(UniformFloat(5, uint64_t(t), Purpose::kTest) * kVocab));
    sample.loss_mask.push_back((t > 4 && t < 11) || t > 15);
  }
  sample.taps = RandomFloats(6, size_t(length) * config.taps.size() * kWidth, 1);
  sample.last_hidden = RandomFloats(7, size_t(length) * kWidth, 0.5f);
  return sample;
}

class SequentialModel : public testing::TestWithParam<DrafterKind> {
 protected:
  explicit SequentialModel() : target_(RandomModel(Backbone(4), 3)) {}
  TrainedModel Make(const DrafterConfig& config) {
    files_ = RandomDrafter(config, 9);
    return {config, *target_.weights, *files_.weights};
  }
  ModelFiles target_;
  DrafterFiles files_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, SequentialModel, testing::Values(DrafterKind::kEagle3, DrafterKind::kMtp),
                         [](const auto& kind) { return kind.param == DrafterKind::kMtp ? "Mtp" : "Eagle3"; });

// What is trained is what will draft: the engine's drafter, fed with the text's own tokens, has the logits of
// every step of every row.
TEST_P(SequentialModel, LogitsAreTheDraftersInService) {
  const DrafterConfig config = RandomConfig(GetParam());
  const TrainedModel model = Make(config);
  const TrainSample sample = RandomSample(40, config);
  const StepRows rows = model.Rows(sample);
  const auto states = SequentialStates(model.run, model.weights, sample, rows);

  const auto matrix = [&](const char* name) {
    const torch::Tensor values = TensorFrom(*target_.weights->Find(name));
    return PackFloats(kVocab, kWidth, {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()});
  };
  const char* head = target_.config.tied_embeddings ? "token_embd.weight" : "output.weight";
  const LendingTarget target(Backbone(4), matrix("token_embd.weight"), matrix(head));
  ThreadPool pool(1);
  const DrafterLimits limits{.max_context = 64, .block_tokens = 16, .kv_type = KvType::kF32, .candidates = 0};
  auto drafter = LoadDrafter(files_, target, pool, limits).value();
  const bool eagle3 = GetParam() == DrafterKind::kEagle3;
  const std::vector<float>& taps = eagle3 ? sample.taps : sample.last_hidden;
  const size_t width = taps.size() / sample.ids.size();
  drafter->Begin(1, {});
  int64_t observed = 0;
  for (size_t i = 0; i < rows.rows.size(); ++i) {
    const int64_t row = rows.rows[i];
    if (row + 1 + kSteps > std::ssize(sample.ids)) break;
    ObserveRows(*drafter, 1, int(observed), int(row + 1), sample.ids, taps, width);
    observed = row + 1;
    RecordingSampler sampler({sample.ids.begin() + row + 2, sample.ids.begin() + row + 1 + kSteps});
    ProposeAlone(*drafter, 1, &sampler);
    ASSERT_EQ(sampler.logits.size(), size_t(kSteps) * kVocab);
    for (int k = 0; k < kSteps; ++k) {
      const torch::Tensor ours = model.Logits(states[size_t(k)])[int64_t(i)];
      const std::span theirs = std::span(sampler.logits).subspan(size_t(k) * kVocab, kVocab);
      EXPECT_LT(MaxDifference({ours.data_ptr<float>(), size_t(kVocab)}, theirs), 1e-4f) << row << " " << k;
    }
  }
  EXPECT_GT(observed, 30);
}

// Along its own direction, the loss changes as fast as the gradient is long.
TEST_P(SequentialModel, GradientsByFiniteDifferences) {
  for (const bool reduced : {false, true}) {
    DrafterConfig config = RandomConfig(GetParam());
    for (int id = 0; reduced && id < kVocab; id += 2) config.draft_to_target.push_back(id);
    if (reduced) config.backbone.vocab = int(config.draft_to_target.size());
    TrainedModel model = Make(config);
    model.run.shares = {0.7, 0.4, 0};
    const TrainSample sample = RandomSample(100, config);  // more rows than attention takes at once
    model.Loss(sample).total.backward();
    const at::NoGradGuard no_grad;
    for (const Parameter& p : model.parameters.all()) {
      SCOPED_TRACE(p.name);
      const torch::Tensor gradient = model.weights[p.name].leaf.grad().clone();
      const double length = gradient.norm().item<double>();
      ASSERT_GT(length, 0);
      const torch::Tensor before = p.master.clone(), way = gradient / length * 4e-3;
      const auto loss = [&] { return model.Loss(sample).total.item<double>(); };
      model.weights[p.name].leaf.copy_(before + way);
      const double up = loss();
      model.weights[p.name].leaf.copy_(before - way);
      const double down = loss();
      model.weights[p.name].leaf.copy_(before);
      EXPECT_NEAR((up - down) / 8e-3, length, 0.01 * length + 2e-4);
    }
  }
}

// A draft of a teacher who wants a token that cannot be drafted teaches nothing, but is counted.
TEST(SequentialLossTest, RowsWhoseTokenCannotBeDrafted) {
  DrafterConfig config = RandomConfig(DrafterKind::kEagle3);
  for (int id = 0; id < kVocab; id += 2) config.draft_to_target.push_back(id);
  config.backbone.vocab = int(config.draft_to_target.size());
  const ModelFiles target = RandomModel(Backbone(4), 3);
  const DrafterFiles files = RandomDrafter(config, 9);
  TrainedModel model(config, *target.weights, *files.weights);
  const TrainSample sample = RandomSample(40, config);
  const StepRows rows = model.Rows(sample);
  const SequentialLoss loss = model.Loss(sample);
  const auto states = SequentialStates(model.run, model.weights, sample, rows);
  const torch::Tensor head =
      LoadFrozen(*target.weights, RandomConfig(DrafterKind::kEagle3), torch::kFloat32).value().head;  // by id
  const torch::Tensor ids =
      torch::tensor(std::vector<int64_t>(config.draft_to_target.begin(), config.draft_to_target.end()));
  double total = 0;
  int masked = 0;
  for (size_t i = 0; i < loss.at.size(); ++i) {
    const int64_t row = loss.at[i] / kSteps, step = loss.at[i] % kSteps;
    const int64_t at = rows.rows[size_t(row)] + 1 + step;
    const auto state = sample.last_hidden.begin() + at * kWidth;
    const torch::Tensor q =
        torch::tensor(std::vector<float>(state, state + kWidth)).matmul(head.t()).softmax(0);
    const torch::Tensor p = model.Logits(states[size_t(step)])[row].softmax(0),
                        drafted = q.index_select(0, ids);
    const bool counts = q.argmax().item<int64_t>() % 2 == 0;
    const double ce = counts ? -(drafted / drafted.sum() * p.log()).sum().item<double>() : 0;
    EXPECT_NEAR(loss.ce[int64_t(i)].item<double>(), ce, 1e-4);
    const double accepted = torch::minimum(p, drafted).sum().item<double>();
    EXPECT_NEAR(1 - loss.l1[int64_t(i)].item<double>() / 2, accepted, 1e-4);
    total += std::pow(0.8, step) / 40 * ce;
    masked += !counts;
  }
  EXPECT_GT(masked, 10);
  EXPECT_NEAR(loss.total.item<double>(), total, 1e-4);
}

TEST(ChooseRows, WhatCounts) {
  const std::vector<uint8_t> mask = {0, 0, 0, 0, 1, 1, 0, 0, 0, 1};
  const StepRows eagle3 = ChooseRows(DrafterKind::kEagle3, mask, 2, 0.5);
  EXPECT_EQ(eagle3.rows, (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(eagle3.valid, (std::vector<uint8_t>{0, 1, 1, 1, 1, 0}));
  EXPECT_EQ(eagle3.weights, (std::vector<float>{0, 0.05f, 0.1f, 0.05f, 0.1f, 0}));
  EXPECT_EQ(eagle3.weight, 1);
  const StepRows longer = ChooseRows(DrafterKind::kEagle3, mask, 2, 0.5, int(mask.size()));
  for (size_t i = 0; i < eagle3.weights.size(); ++i) EXPECT_EQ(longer.weights[i], eagle3.weights[i] / 2);
  const StepRows mtp = ChooseRows(DrafterKind::kMtp, mask, 2, 0.5);
  EXPECT_EQ(mtp.rows, (std::vector<int64_t>{1, 2, 3, 6, 7}));
  EXPECT_EQ(mtp.valid, (std::vector<uint8_t>{0, 1, 1, 1, 1, 0, 0, 1, 1, 0}));
  EXPECT_EQ(mtp.weight, 3 + 3 * 0.5);
}

}  // namespace
}  // namespace dspark::test

#include "train/trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/clock.h"
#include "train/checkpoint.h"
#include "train/draft_vocabulary.h"
#include "train/init_layers.h"
#include "train/schedule.h"
#include "train/step_workers.h"

namespace dspark {
namespace {

constexpr int64_t kVocabularySamples = 10000;  // read to choose a reduced vocabulary

BlockRun MakeRun(const TrainConfig& config, const DrafterConfig& drafter, FrozenWeights frozen,
                 torch::ScalarType precision) {
  return {.config = drafter,
          .frozen = std::move(frozen),
          .draft_head = {},
          .precision = precision,
          .shares = {config.ce_share, config.l1_share, config.confidence_share}};
}

}  // namespace

struct Trainer::State {
  State(const TrainConfig& c, const DrafterConfig& drafter, const ModelFiles& target_files, SampleSource& s,
        FrozenWeights frozen, int threads)
      : config(c),
        target(target_files),
        source(s),
        precision(c.precision == "f32" ? torch::kFloat32 : torch::kBFloat16),
        run(MakeRun(c, drafter, std::move(frozen), precision)),
        parameters(drafter, precision, uint64_t(c.seed), run.frozen.head),
        adam(&parameters, {.weight_decay = c.weight_decay, .clip = c.clip}),
        order(s.size(), c.batch, uint64_t(c.data_seed)),
        workers(run, parameters, threads) {
    run.draft_head = parameters.draft_head();
    total = config.epochs * order.steps_per_epoch();
    if (config.steps > 0) total = config.steps;
    rate = LearningRate::Recipe(config.learning_rate, total, config.warmup_share);
  }

  Checkpoint Files() {
    return {.config = run.config,
            .target = *target.weights,
            .parameters = parameters,
            .adam = adam,
            .anchors = config.anchors,
            .stored = precision};
  }
  // What must be the same for a checkpoint to go on.
  nlohmann::ordered_json TrainingJson() const {
    nlohmann::ordered_json json;
    json["config"] = TrainConfigJson(config);
    json["samples"] = source.size();
    json["draft_ids"] = run.config.draft_to_target;
    return json;
  }

  const TrainConfig config;
  const ModelFiles& target;
  SampleSource& source;
  const torch::ScalarType precision;
  BlockRun run;
  Parameters parameters;
  AdamW adam;
  DataOrder order;
  LearningRate rate;
  StepWorkers workers;
  int64_t total = 0, step = 0;
};

Trainer::Trainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Trainer::~Trainer() = default;
int64_t Trainer::step() const { return state_->step; }
int64_t Trainer::total_steps() const { return state_->total; }
const DrafterConfig& Trainer::drafter() const { return state_->run.config; }

Result<std::unique_ptr<Trainer>> Trainer::Make(const TrainConfig& config, const ModelFiles& target,
                                               SampleSource& source) {
  DSPARK_ASSIGN_OR_RETURN(DrafterConfig drafter, DrafterFor(config, target.config));
  if (source.shape().tap_layers != drafter.taps || source.shape().d_model != drafter.target_width ||
      source.shape().vocab != drafter.target_vocab) {
    return MakeError(
        "the data are of other taps, width or vocabulary than the drafter's; make the cache again");
  }
  if (source.size() < config.batch) {
    return MakeError("the data hold {} samples, fewer than one batch of {}; lower batch or add data",
                     source.size(), config.batch);
  }
  if (config.draft_vocab > 0 && config.draft_vocab < drafter.target_vocab) {
    DSPARK_ASSIGN_OR_RETURN(drafter.draft_to_target,
                            ChooseDraftVocabulary(source, config.draft_vocab, kVocabularySamples));
    drafter.backbone.vocab = int(drafter.draft_to_target.size());
  }
  const auto precision = config.precision == "f32" ? torch::kFloat32 : torch::kBFloat16;
  DSPARK_ASSIGN_OR_RETURN(FrozenWeights frozen, LoadFrozen(*target.weights, drafter, precision));
  const int cores = std::max(1, int(std::thread::hardware_concurrency()));
  const int threads = config.threads > 0 ? config.threads : cores;
  at::set_num_threads(threads);
  auto state = std::make_unique<State>(config, drafter, target, source, std::move(frozen), threads);
  DSPARK_RETURN_IF_ERROR(InitLayers(config.init_layers, target, &state->parameters));
  return std::unique_ptr<Trainer>(new Trainer(std::move(state)));
}

Result<StepReport> Trainer::Step() {
  State& s = *state_;
  StepReport report{.step = s.step + 1, .metrics = BlockMetrics(s.config.block_size)};
  report.learning_rate = s.rate.At(s.step);
  const std::vector<int64_t> indices = s.order.Batch(s.step);
  const int64_t epoch = s.step / s.order.steps_per_epoch();
  const int groups = s.config.batch / s.config.group;
  for (int g = 0; g < groups; ++g) {
    const auto first = indices.begin() + long(g) * s.config.group;
    const std::vector<int64_t> group(first, first + s.config.group);
    const double start = NowMs();
    DSPARK_ASSIGN_OR_RETURN(const std::vector<TrainSample> samples, s.source.Read(group));
    report.source_ms += NowMs() - start;
    std::vector<TrainItem> items;
    for (size_t i = 0; i < samples.size(); ++i) {
      const TrainSample& sample = samples[i];
      const auto keys = AnchorKeys(uint64_t(s.config.seed), epoch, group[i], sample.ids.size());
      const auto anchors = SampleAnchors(sample.loss_mask, keys, s.config.anchors);
      items.push_back({&sample, MakeBlockSlots(sample.ids, sample.loss_mask, anchors, s.config.block_size,
                                               float(s.config.decay))});
      report.anchors += items.back().slots.blocks;
      report.positions += int64_t(sample.ids.size());
    }
    report.loss += s.workers.RunGroup(items, groups, &report.metrics);
    report.train_ms += NowMs() - start;
  }
  report.train_ms -= report.source_ms;
  const double start = NowMs();
  std::vector<torch::Tensor> gradients = s.workers.TakeGradients();
  report.grad_norm = s.adam.Step(gradients, report.learning_rate);
  report.optimizer_ms = NowMs() - start;
  if (!std::isfinite(report.loss) || !std::isfinite(report.grad_norm)) {
    return MakeError(
        "step {}: the loss is {}, its gradient's norm {}; lower learning_rate, go on from the last "
        "checkpoint",
        report.step, report.loss, report.grad_norm);
  }
  ++s.step;
  return report;
}

Status Trainer::Save(const std::string& dir) const {
  nlohmann::ordered_json json = state_->TrainingJson();
  json["step"] = state_->step;
  return SaveCheckpoint(state_->Files(), json, state_->step, state_->config.checkpoints_kept, dir);
}

Result<bool> Trainer::Resume(const std::string& dir) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json stored, ReadTrainingJson(dir));
  if (stored.is_null()) return false;
  const nlohmann::json ours = state_->TrainingJson();
  const auto differs = [&](const char* key) { return stored.value(key, nlohmann::json()) != ours[key]; };
  nlohmann::json theirs = stored.value("config", nlohmann::json::object());
  for (const auto& [key, value] : ours["config"].items()) {
    const bool free = key == "out" || key == "checkpoint_every" || key == "checkpoints_kept";
    if (!free && theirs.value(key, nlohmann::json()) != value) {
      return MakeError(
          "{}/step_latest: was trained with another {}; give the same configuration or another out", dir,
          key);
    }
  }
  if (differs("samples") || differs("draft_ids") ||
      !stored.value("step", nlohmann::json()).is_number_integer()) {
    return MakeError("{}/step_latest: was trained on other data; give the same or another out", dir);
  }
  DSPARK_RETURN_IF_ERROR(LoadCheckpoint(state_->Files(), dir));
  state_->step = state_->adam.steps = stored["step"].get<int64_t>();
  return true;
}

}  // namespace dspark

#include "train/trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/clock.h"
#include "train/block_trainable.h"
#include "train/checkpoint.h"
#include "train/data_digest.h"
#include "train/draft_vocabulary.h"
#include "train/init_layers.h"
#include "train/process_group.h"
#include "train/schedule.h"
#include "train/sequential_trainable.h"
#include "train/step_workers.h"

namespace dspark {
namespace {

constexpr int64_t kVocabularySamples = 10000;  // read to choose a reduced vocabulary

// config.json's keys that only training knows.
nlohmann::ordered_json TrainingKeys(const TrainConfig& config) {
  if (config.kind == "mtp") return nlohmann::ordered_json::object();
  if (config.kind != "eagle3") return {{"num_anchors", config.anchors}};
  return {{"step_loss_decay", config.ttt_decay}, {"target_model_name_or_path", config.target}};
}

std::unique_ptr<TrainableDrafter> MakeTrainable(const TrainConfig& config, const DrafterConfig& drafter,
                                                const FrozenWeights& frozen, const Parameters& parameters,
                                                torch::ScalarType precision) {
  const LossShares shares{config.ce_share, config.l1_share, config.confidence_share, config.loss == "lk",
                          config.slot_weights == "dpace"};
  if (drafter.kind != DrafterKind::kBlock) {
    return MakeSequentialTrainable({.config = drafter,
                                    .frozen = frozen,
                                    .draft_head = parameters.draft_head(),
                                    .precision = precision,
                                    .shares = shares},
                                   config.ttt_decay);
  }
  return MakeBlockTrainable(
      {.config = drafter,
       .frozen = frozen,
       .draft_head = parameters.draft_head(),
       .precision = precision,
       .shares = shares},
      {.anchors = config.anchors, .decay = config.decay, .seed = uint64_t(config.seed)});
}

}  // namespace

struct Trainer::State {
  State(const TrainConfig& c, const DrafterConfig& d, const ModelFiles& target_files, SampleSource& s,
        const FrozenWeights& frozen, int threads, ProcessGroup* processes)
      : config(c),
        drafter(d),
        target(target_files),
        source(s),
        group(processes ? *processes : alone),
        precision(c.precision == "f32" ? torch::kFloat32 : torch::kBFloat16),
        parameters(drafter, precision, uint64_t(c.seed), frozen.head),
        trainable(MakeTrainable(config, drafter, frozen, parameters, precision)),
        adam(&parameters, {.weight_decay = c.weight_decay, .clip = c.clip}),
        order(s.size(), c.batch, uint64_t(c.data_seed)),
        workers(parameters, trainable->drafts(), threads) {
    total = config.epochs * order.steps_per_epoch();
    if (config.steps > 0) total = config.steps;
    rate = LearningRate::Recipe(config.learning_rate, total, config.warmup_share);
  }

  Result<bool> ReadCheckpoint(const std::string& dir);
  Status ShareState(bool* resumed);
  Status CheckSameData();
  Result<std::vector<TrainSample>> ReadShare(const std::vector<int64_t>& indices, StepReport* report);
  Status AddUp(StepReport* report);

  Checkpoint Files() {
    return {.config = drafter,
            .target = *target.weights,
            .parameters = parameters,
            .adam = adam,
            .training_keys = TrainingKeys(config),
            .stored = precision};
  }
  // What must be the same for a checkpoint to go on.
  nlohmann::ordered_json TrainingJson() const {
    nlohmann::ordered_json json;
    json["config"] = TrainConfigJson(config);
    json["samples"] = source.size();
    json["data_sha256"] = data_digest;
    json["draft_ids"] = drafter.draft_to_target;
    json["teacher_top_k"] = source.shape().teacher_top;
    return json;
  }

  const TrainConfig config;
  const DrafterConfig drafter;
  const ModelFiles& target;
  SampleSource& source;
  ProcessGroup alone;
  ProcessGroup& group;
  const torch::ScalarType precision;
  Parameters parameters;
  const std::unique_ptr<TrainableDrafter> trainable;
  AdamW adam;
  DataOrder order;
  LearningRate rate;
  StepWorkers workers;
  std::string data_digest;
  int64_t total = 0, step = 0;
};

Trainer::Trainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Trainer::~Trainer() = default;
int64_t Trainer::step() const { return state_->step; }
int64_t Trainer::total_steps() const { return state_->total; }
const DrafterConfig& Trainer::drafter() const { return state_->drafter; }

Result<std::unique_ptr<Trainer>> Trainer::Make(const TrainConfig& config, const ModelFiles& target,
                                               SampleSource& source, ProcessGroup* group) {
  DSPARK_ASSIGN_OR_RETURN(DrafterConfig drafter, DrafterFor(config, target.config));
  const bool taps_fit = drafter.taps.empty() || source.shape().tap_layers == drafter.taps;
  const int vocab = source.shape().vocab;  // 0: a cache that does not say it
  if (!taps_fit || source.shape().d_model != drafter.target_width ||
      (vocab != 0 && vocab != drafter.target_vocab)) {
    return MakeError(
        "the data are of other taps, width or vocabulary than the drafter's; make the cache again");
  }
  if (source.size() < config.batch) {
    return MakeError("the data hold {} samples, fewer than one batch of {}; lower batch or add data",
                     source.size(), config.batch);
  }
  ProcessGroup alone;
  ProcessGroup& processes = group ? *group : alone;
  if (processes.world() > config.group) {
    return MakeError("{} processes share groups of {} samples, so some would have none; give a larger group",
                     processes.world(), config.group);
  }
  double samples = double(source.size());
  DSPARK_RETURN_IF_ERROR(processes.TakeFirsts({&samples, 1}));
  if (int64_t(samples) != source.size()) {
    return MakeError("{} samples, but {} in the process of rank 0; give all processes the same data",
                     source.size(), int64_t(samples));
  }
  if (config.draft_vocab > 0 && config.draft_vocab < drafter.target_vocab) {
    DSPARK_ASSIGN_OR_RETURN(drafter.draft_to_target,
                            ChooseDraftVocabulary(source, config.draft_vocab, kVocabularySamples, processes));
    drafter.backbone.vocab = int(drafter.draft_to_target.size());
    drafter.own_head = true;
  }
  const auto precision = config.precision == "f32" ? torch::kFloat32 : torch::kBFloat16;
  DSPARK_ASSIGN_OR_RETURN(const FrozenWeights frozen, LoadFrozen(*target.weights, drafter, precision));
  const int cores = std::max(1, int(std::thread::hardware_concurrency()));
  const int threads = config.threads > 0 ? config.threads : cores;
  at::set_num_threads(threads);
  auto state = std::make_unique<State>(config, drafter, target, source, frozen, threads, group);
  DSPARK_RETURN_IF_ERROR(InitLayers(config.init_layers, target, &state->parameters));
  DSPARK_ASSIGN_OR_RETURN(state->data_digest, DataDigest(source));
  DSPARK_RETURN_IF_ERROR(state->CheckSameData());
  return std::unique_ptr<Trainer>(new Trainer(std::move(state)));
}

// That all processes have the data and the teacher of the first, by what a checkpoint is compared with.
Status Trainer::State::CheckSameData() {
  nlohmann::ordered_json ours = TrainingJson();
  ours.erase("config");  // its paths may differ
  DSPARK_ASSIGN_OR_RETURN(const std::string text, group.FirstsText("data", ours.dump()));
  const auto firsts = nlohmann::ordered_json::parse(text);
  if (firsts["teacher_top_k"] != ours["teacher_top_k"]) {
    return MakeError(
        "teacher_top_k of the data is {}, but {} in the process of rank 0; give all the same cache",
        ours["teacher_top_k"].dump(), firsts["teacher_top_k"].dump());
  }
  if (firsts != ours)
    return MakeError("the data are not those of the process of rank 0; give all the same data");
  return {};
}

// The samples of `indices` that are this process's share: every world-th.
Result<std::vector<TrainSample>> Trainer::State::ReadShare(const std::vector<int64_t>& indices,
                                                           StepReport* report) {
  const double start = NowMs();
  std::vector<int64_t> share;
  for (size_t i = size_t(group.rank()); i < indices.size(); i += size_t(group.world()))
    share.push_back(indices[i]);
  DSPARK_ASSIGN_OR_RETURN(std::vector<TrainSample> samples, source.Read(share));
  for (size_t i = 0; i < share.size(); ++i) samples[i].id = share[i];
  report->source_ms += NowMs() - start;
  return samples;
}

// What the processes counted, each of its own samples.
Status Trainer::State::AddUp(StepReport* report) {
  std::vector<double> sums = report->metrics.Sums();
  sums.insert(sums.end(), {report->loss, double(report->anchors), double(report->positions)});
  DSPARK_RETURN_IF_ERROR(group.Sum(sums));
  report->positions = int64_t(sums.back());
  report->anchors = int64_t(sums[sums.size() - 2]);
  report->loss = sums[sums.size() - 3];
  report->metrics.SetSums(std::span(sums).first(sums.size() - 3));
  return {};
}

Result<StepReport> Trainer::Step() {
  State& s = *state_;
  StepReport report{.step = s.step + 1, .metrics = BlockMetrics(s.trainable->drafts())};
  report.learning_rate = s.rate.At(s.step);
  const std::vector<int64_t> indices = s.order.Batch(s.step);
  const int64_t epoch = s.step / s.order.steps_per_epoch();
  const int groups = s.config.batch / s.config.group;
  const auto exchange = [&](const auto& call) {
    const double start = NowMs();
    const Status status = call();
    report.exchange_ms += NowMs() - start;
    return status;
  };
  const double start = NowMs();
  for (int g = 0; g < groups; ++g) {
    const auto first = indices.begin() + long(g) * s.config.group;
    DSPARK_ASSIGN_OR_RETURN(const std::vector<TrainSample> samples,
                            s.ReadShare({first, first + s.config.group}, &report));
    TrainItems items;
    double weight = 0;
    for (const TrainSample& sample : samples) {
      items.push_back(s.trainable->MakeItem(sample, epoch, sample.id));
      report.anchors += items.back()->anchors();
      report.positions += int64_t(sample.ids.size());
      weight += items.back()->weight();
    }
    DSPARK_RETURN_IF_ERROR(exchange([&] { return s.group.Sum({&weight, 1}); }));
    report.loss += s.workers.RunGroup(items, weight + 1e-6, groups, &report.metrics);
  }
  std::vector<torch::Tensor> gradients = s.workers.TakeGradients();
  DSPARK_RETURN_IF_ERROR(exchange([&] { return s.group.Sum(gradients); }));
  DSPARK_RETURN_IF_ERROR(exchange([&] { return s.AddUp(&report); }));
  report.train_ms = NowMs() - start - report.source_ms - report.exchange_ms;
  const double optimizer_start = NowMs();
  report.grad_norm = s.adam.Step(gradients, report.learning_rate);
  report.optimizer_ms = NowMs() - optimizer_start;
  if (!std::isfinite(report.loss) || !std::isfinite(report.grad_norm)) {
    return MakeError(
        "step {}: the loss is {}, its gradient's norm {}; start anew in another out, with a lower "
        "learning_rate",
        report.step, report.loss, report.grad_norm);
  }
  ++s.step;
  return report;
}

Status Trainer::Save(const std::string& dir) const {
  nlohmann::ordered_json json = state_->TrainingJson();
  json["step"] = state_->step;
  if (!state_->group.first()) return {};
  return SaveCheckpoint(state_->Files(), json, state_->step, state_->config.checkpoints_kept, dir);
}

Result<bool> Trainer::State::ReadCheckpoint(const std::string& dir) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json stored, ReadTrainingJson(dir));
  if (stored.is_null()) return false;
  const nlohmann::json ours = TrainingJson();
  const auto differs = [&](const char* key) { return stored.value(key, nlohmann::json()) != ours[key]; };
  // What it does not say, it was trained with the default of.
  DSPARK_ASSIGN_OR_RETURN(
      const TrainConfig theirs_read,
      ParseTrainConfig(stored.value("config", nlohmann::json::object()), dir + "/step_latest/training.json"));
  const nlohmann::json theirs = TrainConfigJson(theirs_read);
  if (theirs["kind"] != ours["config"]["kind"]) {
    return MakeError("{}/step_latest: was trained with another kind; give the same or another out", dir);
  }
  for (const auto& [key, value] : ours["config"].items()) {
    const bool free =
        key == "out" || key == "checkpoint_every" || key == "checkpoints_kept" || key == "threads";
    if (!free && theirs.value(key, nlohmann::json()) != value) {
      return MakeError(
          "{}/step_latest: was trained with another {}; give the same configuration or another out", dir,
          key);
    }
  }
  if (stored.value("teacher_top_k", nlohmann::json(0)) != ours["teacher_top_k"]) {
    return MakeError("{}/step_latest: was trained with another teacher_top_k of the cache; give another out",
                     dir);
  }
  if (differs("data_sha256") || differs("draft_ids") ||
      !stored.value("step", nlohmann::json()).is_number_integer()) {
    return MakeError("{}/step_latest: was trained on other data; give the same or another out", dir);
  }
  DSPARK_RETURN_IF_ERROR(LoadCheckpoint(Files(), dir));
  step = adam.steps = stored["step"].get<int64_t>();
  return true;
}

// Everything that the first process has, whether it was read, chosen or drawn.
Status Trainer::State::ShareState(bool* resumed) {
  if (group.world() == 1) return {};
  double firsts[] = {double(*resumed), double(step)};
  DSPARK_RETURN_IF_ERROR(group.TakeFirsts(firsts));
  *resumed = firsts[0] != 0;
  step = adam.steps = int64_t(firsts[1]);
  DSPARK_RETURN_IF_ERROR(group.TakeFirsts(RunningState(Files())));
  parameters.RefreshLow();
  return {};
}

Result<bool> Trainer::Resume(const std::string& dir) {
  bool resumed = false;
  if (state_->group.first()) {
    DSPARK_ASSIGN_OR_RETURN(resumed, state_->ReadCheckpoint(dir));
  }
  DSPARK_RETURN_IF_ERROR(state_->ShareState(&resumed));
  return resumed;
}

}  // namespace dspark

// dspark-train: trains a drafter. One JSON file says how; every key can be given on the command line too.
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "load/json_file.h"
#include "train/mask_token.h"
#include "train/open_source.h"
#include "train/out_lock.h"
#include "train/process_group.h"
#include "train/train_log.h"
#include "train/trainer.h"

namespace dspark {
namespace {

constexpr char kUsage[] =
    "usage: dspark train [CONFIG.json] [key=value ...]\n"
    "       dspark train --defaults [kind=KIND]      print a configuration with every key and its default\n\n"
    "Trains a drafter for a model. At least target=MODEL, data=[\"file.jsonl\"] (or one target cache) and\n"
    "out=DIRECTORY are needed. Started again with the same configuration it goes on from out/step_latest.\n"
    "  dspark train target=model.gguf 'data=[\"train.jsonl\"]' out=drafter steps=2000\n"
    "Kinds of drafters: dspark, dflash, eagle3, mtp; and ngram, a counted table: one file, out=table.gguf.\n"
    "Each checkpoint is a drafter: dspark run -m model.gguf -md drafter/step_latest. For GGUF: dspark "
    "convert.\n"
    "Several processes: the same command in each, with rank=0 world=2 store=tcp://HOST:PORT (rank=1 ...), "
    "or\n"
    "started by torchrun, mpirun or srun.\n"
    "docs/training.md explains the keys.\n";

volatile std::sig_atomic_t interrupted = 0;

std::optional<std::string> FromEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (!value || !*value) return {};
  return value;
}

// Of one process of several on this machine, where nobody gave it cores of its own.
int ShareOfThreads(int processes) {
  const int cores = int(std::thread::hardware_concurrency());
  const bool bound = cores < int(sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, bound ? cores : cores / processes);
}

// That all processes train the same; where files lie, and threads, may differ.
Status CheckSameConfig(const TrainConfig& config, ProcessGroup& group) {
  const auto ours = TrainConfigJson(config);
  DSPARK_ASSIGN_OR_RETURN(const std::string text, group.FirstsText("config", ours.dump()));
  const auto firsts = nlohmann::json::parse(text);
  for (const auto& [key, value] : ours.items()) {
    const bool free = key == "target" || key == "data" || key == "out" || key == "threads";
    if (!free && firsts[key] != value) {
      return MakeError("{} is {}, but {} in the process of rank 0; give all processes the same configuration",
                       key, value.dump(), firsts[key].dump());
    }
  }
  return {};
}

std::string WhatIsTrained(const TrainConfig& config) {
  std::filesystem::path target(config.target);
  if (!target.has_filename()) target = target.parent_path();  // "name/"
  return fmt::format("{} for {}", config.kind, target.filename().string());
}

// What the first process leaves for people and for the next start.
class Desk {
 public:
  static Result<Desk> Open(const TrainConfig& config, const Trainer& trainer) {
    DSPARK_ASSIGN_OR_RETURN(TrainLog log, TrainLog::Open(config.out, trainer.step(), WhatIsTrained(config)));
    return Desk(config.out, std::move(log));
  }

  Status Add(const StepReport& report, const Trainer& trainer, double seconds) {
    mean_ = mean_ == 0 ? seconds : 0.9 * mean_ + 0.1 * seconds;
    DSPARK_RETURN_IF_ERROR(log_.Add(report, seconds));
    const double left = mean_ * double(trainer.total_steps() - trainer.step());
    fmt::print(stderr, "{}\n", ProgressLine(report, trainer.total_steps(), seconds, left));
    return {};
  }
  Status Save(const Trainer& trainer) const {
    DSPARK_RETURN_IF_ERROR(trainer.Save(out_));
    return log_.WriteHtml();
  }

 private:
  Desk(std::string out, TrainLog log) : out_(std::move(out)), log_(std::move(log)) {}
  std::string out_;
  TrainLog log_;
  double mean_ = 0;  // seconds of a step
};

// Steps to the end, or until a user interrupts one of the processes; true when it is the end. `desk`: of the
// first process, null in the others.
Result<bool> RunSteps(Trainer& trainer, Desk* desk, const TrainConfig& config, ProcessGroup& group) {
  while (trainer.step() < trainer.total_steps()) {
    const double start = NowMs();
    DSPARK_ASSIGN_OR_RETURN(const StepReport report, trainer.Step());
    double stop = interrupted;
    DSPARK_RETURN_IF_ERROR(group.Sum({&stop, 1}));
    const bool due = trainer.step() % config.checkpoint_every == 0 || trainer.step() == trainer.total_steps();
    if (desk) DSPARK_RETURN_IF_ERROR(desk->Add(report, trainer, (NowMs() - start) / 1e3));
    if (desk && (due || stop > 0)) DSPARK_RETURN_IF_ERROR(desk->Save(trainer));
    if (stop > 0) return false;
  }
  return true;
}

Result<int> Train(TrainConfig config, ProcessGroup& group) {
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles target, OpenModel(config.target));
  const bool blocks = config.kind == "dspark" || config.kind == "dflash";
  if (blocks && config.mask_token < 0) {
    const MaskToken mask = ChooseMaskToken(target);
    config.mask_token = mask.id;
    if (group.first()) fmt::print(stderr, "mask_token {}: {}\n", mask.id, mask.why);
  }
  DSPARK_RETURN_IF_ERROR(CheckSameConfig(config, group));
  DSPARK_ASSIGN_OR_RETURN(const DrafterConfig drafter, DrafterFor(config, target.config));
  DSPARK_ASSIGN_OR_RETURN(const auto data, TrainingData::Open(config, target, drafter.taps));
  if (group.first())
    for (const std::string& line : data->messages()) fmt::print(stderr, "{}\n", line);
  DSPARK_ASSIGN_OR_RETURN(const auto trainer, Trainer::Make(config, target, data->source(), &group));
  std::optional<OutLock> lock;
  if (group.first()) {
    DSPARK_ASSIGN_OR_RETURN(OutLock taken, OutLock::Take(config.out));
    lock.emplace(std::move(taken));
  }
  DSPARK_ASSIGN_OR_RETURN(const bool resumed, trainer->Resume(config.out));
  std::optional<Desk> desk;
  if (group.first()) {
    DSPARK_ASSIGN_OR_RETURN(desk, Desk::Open(config, *trainer));
    fmt::print(stderr, "{}\n", TrainConfigJson(config).dump(2));
    fmt::print(stderr, "teacher: {}\n", TeacherText(data->source().shape()));
    fmt::print(stderr, "{} samples, {} steps{}{}\n", data->source().size(), trainer->total_steps(),
               group.world() > 1 ? fmt::format(", {} processes", group.world()) : "",
               resumed ? fmt::format(", going on after {}", trainer->step()) : "");
  }
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  DSPARK_ASSIGN_OR_RETURN(const bool ended, RunSteps(*trainer, desk ? &*desk : nullptr, config, group));
  if (group.first())
    fmt::print("{}/step_latest: {} of {} steps\n", config.out, trainer->step(), trainer->total_steps());
  return ended ? 0 : 130;
}

// What a command line asks for.
struct Task {
  TrainConfig config;
  ProcessPlace place;
};

Result<Task> TaskOf(nlohmann::json keys) {
  Task task;
  DSPARK_ASSIGN_OR_RETURN(task.place, FindProcessPlace(&keys, FromEnvironment));
  DSPARK_ASSIGN_OR_RETURN(task.config, ParseTrainConfig(keys, "configuration"));
  TrainConfig& config = task.config;
  if (config.target.empty()) return MakeError("configuration: no target; give target=MODEL");
  if (config.data.empty()) return MakeError("configuration: no data; give data=[\"file.jsonl\"]");
  if (config.out.empty()) return MakeError("configuration: no out; give out=DIRECTORY");
  if (config.threads == 0 && task.place.on_this_machine > 1)
    config.threads = ShareOfThreads(task.place.on_this_machine);
  return task;
}

// The exit code of a command line that makes no sense.
int Misused(const Error& error) {
  fmt::print(stderr, "dspark train: {}\n", error.text);
  return 2;
}

Result<int> PrintDefaults(const std::vector<std::string>& arguments) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json keys, ReadJsonArguments(arguments));
  const auto config = ParseTrainConfig(keys, "configuration");
  if (!config) return Misused(config.error());
  fmt::print("{}\n", TrainConfigJson(*config).dump(2));
  return 0;
}

Result<int> Run(const std::vector<std::string>& arguments) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json keys, ReadJsonArguments(arguments));
  const auto task = TaskOf(keys);
  if (!task) return Misused(task.error());
  const ProcessPlace& place = task->place;
  if (place.world > 1) std::signal(SIGPIPE, SIG_IGN);  // a process that ends is an error of a call
  DSPARK_ASSIGN_OR_RETURN(ProcessGroup group, ProcessGroup::Join(place));
  const auto result = Train(task->config, group);
  if (result.ok() || place.world == 1) return result;
  group.Leave(result.error().text);
  return MakeError("rank {}: {}", place.rank, result.error().text);
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "--help";
  if (first == "--help" || first == "-h") {
    std::fputs(dspark::kUsage, stdout);
    return argc > 1 ? 0 : 2;
  }
  // A step frees and asks for the same large blocks again and again: keep them instead of giving them back.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  const bool defaults = first == "--defaults";
  const std::vector<std::string> arguments(argv + (defaults ? 2 : 1), argv + argc);
  const dspark::Result<int> result = defaults ? dspark::PrintDefaults(arguments) : dspark::Run(arguments);
  if (result.ok()) return result.value();
  fmt::print(stderr, "dspark train: {}\n", result.error().text);
  return 1;
}

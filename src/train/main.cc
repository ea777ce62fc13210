// dspark-train: trains a drafter. One JSON file says how; every key can be given on the command line too.
#include <fmt/format.h>
#include <malloc.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "core/clock.h"
#include "load/json_file.h"
#include "train/open_source.h"
#include "train/train_log.h"
#include "train/trainer.h"

namespace dspark {
namespace {

constexpr char kUsage[] =
    "usage: dspark train [CONFIG.json] [key=value ...]\n"
    "       dspark train --defaults      print a configuration with every key and its default\n\n"
    "Trains a drafter for a model. At least target=MODEL, data=[\"file.jsonl\"] (or one target cache) and\n"
    "out=DIRECTORY are needed. Started again with the same configuration it goes on from out/step_latest.\n"
    "  dspark train target=model.gguf 'data=[\"train.jsonl\"]' out=drafter steps=2000\n"
    "Each checkpoint is a drafter: dspark run -m model.gguf -md drafter/step_latest. For GGUF: dspark "
    "convert.\n"
    "docs/training.md explains the keys.\n";

volatile std::sig_atomic_t interrupted = 0;

// key=value over what the file says; values are JSON, or texts where they are none.
Result<nlohmann::json> ReadKeys(int argc, char** argv) {
  nlohmann::json json = nlohmann::json::object();
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      DSPARK_ASSIGN_OR_RETURN(const nlohmann::json file, ReadJsonObject(text));
      json.update(file);
      continue;
    }
    const std::string value = text.substr(equals + 1);
    const nlohmann::json parsed = nlohmann::json::parse(value, nullptr, false);
    json[text.substr(0, equals)] = parsed.is_discarded() ? nlohmann::json(value) : parsed;
  }
  return json;
}

Result<TrainConfig> CheckKeys(const nlohmann::json& json) {
  DSPARK_ASSIGN_OR_RETURN(TrainConfig config, ParseTrainConfig(json, "configuration"));
  if (config.target.empty()) return MakeError("configuration: no target; give target=MODEL");
  if (config.data.empty()) return MakeError("configuration: no data; give data=[\"file.jsonl\"]");
  if (config.out.empty()) return MakeError("configuration: no out; give out=DIRECTORY");
  return config;
}

Status SaveAll(const Trainer& trainer, const TrainLog& log, const TrainConfig& config) {
  DSPARK_RETURN_IF_ERROR(trainer.Save(config.out));
  return log.WriteHtml();
}

// Steps to the end, or until the user interrupts; true when it is the end.
Result<bool> RunSteps(Trainer& trainer, TrainLog& log, const TrainConfig& config) {
  double mean = 0;  // seconds of a step
  while (trainer.step() < trainer.total_steps()) {
    const double start = NowMs();
    DSPARK_ASSIGN_OR_RETURN(const StepReport report, trainer.Step());
    const double seconds = (NowMs() - start) / 1e3;
    mean = mean == 0 ? seconds : 0.9 * mean + 0.1 * seconds;
    DSPARK_RETURN_IF_ERROR(log.Add(report, seconds));
    const double left = mean * double(trainer.total_steps() - trainer.step());
    fmt::print(stderr, "{}\n", ProgressLine(report, trainer.total_steps(), seconds, left));
    const bool due = trainer.step() % config.checkpoint_every == 0 || trainer.step() == trainer.total_steps();
    if (due || interrupted) DSPARK_RETURN_IF_ERROR(SaveAll(trainer, log, config));
    if (interrupted) return false;
  }
  return true;
}

Result<int> Run(int argc, char** argv) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json keys, ReadKeys(argc, argv));
  const auto checked = CheckKeys(keys);
  if (!checked) {
    fmt::print(stderr, "dspark train: {}\n", checked.error().text);
    return 2;  // a command line that makes no sense
  }
  const TrainConfig& config = *checked;
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles target, OpenModel(config.target));
  DSPARK_ASSIGN_OR_RETURN(const DrafterConfig drafter, DrafterFor(config, target.config));
  DSPARK_ASSIGN_OR_RETURN(const auto data, TrainingData::Open(config, target, drafter.taps));
  DSPARK_ASSIGN_OR_RETURN(const auto trainer, Trainer::Make(config, target, data->source()));
  std::error_code error;
  std::filesystem::create_directories(config.out, error);
  if (error) return MakeError("{}: cannot be made: {}", config.out, error.message());
  DSPARK_ASSIGN_OR_RETURN(const bool resumed, trainer->Resume(config.out));
  DSPARK_ASSIGN_OR_RETURN(TrainLog log, TrainLog::Open(config.out, trainer->step()));
  fmt::print(stderr, "{}\n", TrainConfigJson(config).dump(2));
  fmt::print(stderr, "{} samples, {} steps{}\n", data->source().size(), trainer->total_steps(),
             resumed ? fmt::format(", going on after {}", trainer->step()) : "");
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  DSPARK_ASSIGN_OR_RETURN(const bool ended, RunSteps(*trainer, log, config));
  fmt::print("{}/step_latest: {} of {} steps\n", config.out, trainer->step(), trainer->total_steps());
  return ended ? 0 : 130;
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "--help";
  if (first == "--help" || first == "-h") {
    std::fputs(dspark::kUsage, stdout);
    return argc > 1 ? 0 : 2;
  }
  if (first == "--defaults") {
    fmt::print("{}\n", dspark::TrainConfigJson(dspark::TrainConfig()).dump(2));
    return 0;
  }
  // A step frees and asks for the same large blocks again and again: keep them instead of giving them back.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  const dspark::Result<int> result = dspark::Run(argc, argv);
  if (result.ok()) return result.value();
  fmt::print(stderr, "dspark train: {}\n", result.error().text);
  return 1;
}

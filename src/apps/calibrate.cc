// dspark calibrate: Sequential Temperature Scaling of a drafter's confidences on held-out prompts.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/eval_session.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/store_temperatures.h"

namespace dspark {
namespace {

struct CalibrateOptions {
  EvalSessionOptions session;
  std::vector<std::string> files;
  bool json = false, dry_run = false;
};

// Rounds of whole blocks, so that every position has its labels, on all files. Drafts are judged one by one,
// as the paper's evaluation does.
Result<std::vector<ConfidenceRound>> Rollouts(const CalibrateOptions& options, const EvalSession& eval) {
  const EvalSetting& s = *eval.setting;
  Drafter* drafter = eval.drafters.front().drafter.get();
  RoundLog log;
  Engine engine(s.target, s.blocks, drafter, s.tokenizer, {},
                {.max_sequences = s.concurrency,
                 .max_draft = drafter->max_tokens(),
                 .fixed_draft = drafter->max_tokens(),
                 .accept_blocks = false,
                 .observer = &log});
  ProgressLine line;
  for (const std::string& file : options.files) {
    DSPARK_ASSIGN_OR_RETURN(const Suite suite, ReadSuite(file, {.max_prompts = options.session.max_prompts,
                                                                .max_turns = options.session.max_turns,
                                                                .seed = options.session.rollout.seed}));
    const std::span<const EvalPrompt> prompts = suite.prompts;
    for (size_t first = 0; first < prompts.size(); first += size_t(s.concurrency)) {
      const size_t count = std::min(size_t(s.concurrency), prompts.size() - first);
      const auto run = RunGroup(engine, s.encoder, s.target.limits().max_context,
                                prompts.subspan(first, count), first, s.rollout);
      if (!run) return run.error();
      ShowProgress(suite, int(first + count), &line);
    }
  }
  return log.confidence();
}

std::string Number(double value) { return std::isfinite(value) ? fmt::format("{:.4f}", value) : "-"; }

void PrintRow(const std::string& position, const std::string& temperature, const PositionCalibration& before,
              const PositionCalibration& after) {
  PrintOutput("{:<9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", position, before.rounds, temperature,
              Number(before.ece), Number(after.ece), Number(before.auroc), Number(after.auroc),
              Number(before.brier), Number(after.brier));
}

void PrintTable(const std::vector<PositionCalibration>& before, const std::vector<PositionCalibration>& after,
                const std::vector<float>& temperatures) {
  PrintOutput("{:<9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", "position", "rounds", "T", "ECE",
              "after", "AUROC", "after", "Brier", "after");
  for (size_t k = 0; k < before.size(); ++k)
    PrintRow(std::to_string(k + 1), fmt::format("{:.3f}", temperatures[k]), before[k], after[k]);
  PrintRow("mean", "", SummarizeCalibration(before), SummarizeCalibration(after));
}

// Positions, from 1, whose outcomes do not suffice for a temperature.
std::vector<int> PositionsLeft(const std::vector<ConfidenceRound>& rounds, int positions) {
  const std::vector<bool> calibrated = CalibratedPositions(rounds, positions);
  std::vector<int> left;
  for (int k = 0; k < positions; ++k) {
    if (!calibrated[size_t(k)]) left.push_back(k + 1);
  }
  return left;
}

Result<int> Run(CalibrateOptions options) {
  options.session.uncalibrated = true;
  options.session.session.draft.policy = "fixed:15";  // nothing is decided by cost
  DSPARK_ASSIGN_OR_RETURN(const auto eval, EvalSession::Open(options.session));
  const LoadedDrafter& drafter = eval->drafters.front();
  const DrafterTraits& traits = drafter.candidate.traits;
  if (traits.own == DraftOrigin::kTable)
    return MakeError(
        "{}: a counted table's probabilities were measured as it was counted; there is nothing to calibrate",
        drafter.path);
  if (!traits.confidence)
    return MakeError("{}: has no confidence head, so there is nothing to calibrate", drafter.path);
  DSPARK_ASSIGN_OR_RETURN(const std::vector<ConfidenceRound> rounds, Rollouts(options, *eval));
  const std::vector<float> temperatures = FitTemperatures(rounds, traits.block);
  if (options.json) {
    nlohmann::json json = CalibrationJson(rounds, traits.block, temperatures);
    json["temperatures"] = temperatures;
    json["rounds"] = rounds.size();
    PrintOutput("{}\n", json.dump());
  } else {
    PrintTable(MeasureCalibration(rounds, traits.block),
               MeasureCalibration(rounds, traits.block, temperatures), temperatures);
  }
  const std::vector<int> left = PositionsLeft(rounds, traits.block);
  if (int(left.size()) == traits.block) {
    return MakeError(
        "{}: {} rounds are too few to calibrate any position: it takes {}, of which {} kept their "
        "draft and {} lost it; give more prompts or --max-tokens",
        drafter.path, rounds.size(), kLeastRounds, kLeastOutcomes, kLeastOutcomes);
  }
  if (!left.empty()) {
    PrintMessage(
        "T stays 1 at position {}: it takes {} rounds, of which {} kept that draft and {} lost it having "
        "kept "
        "those before; more prompts may help\n",
        fmt::join(left, ", "), kLeastRounds, kLeastOutcomes, kLeastOutcomes);
  }
  for (size_t k = 0; k < temperatures.size(); ++k) {
    const float t = std::max(temperatures[k], 1 / temperatures[k]);
    if (t < 0.999f * kHottest) continue;
    PrintMessage(
        "position {}: the best temperature lies at the end of the search, {:.3f}: far from calibrated\n",
        k + 1, temperatures[k]);
  }
  if (options.dry_run) return kExitOk;
  DSPARK_RETURN_IF_ERROR(StoreTemperatures(drafter.path, temperatures));
  PrintMessage("{}: temperatures stored\n", drafter.path);
  return kExitOk;
}

}  // namespace

Command AddCalibrate(CLI::App& app) {
  auto options = std::make_shared<CalibrateOptions>();
  AddEvalSessionFlags(app, &options->session);
  AddRepeatedText(app, "--in", &options->files,
                  "Held-out prompts: JSON lines with turns, messages or conversations; may be repeated")
      ->required();
  app.add_flag("--dry-run", options->dry_run, "Say what would be stored, and leave the drafter as it is");
  app.add_flag("--json", options->json, "One JSON object");
  app.final_callback([options] {
    if (options->session.drafters.size() > 1)
      throw CLI::ValidationError("--draft", "one drafter is calibrated at a time");
    RequireOk(CheckDrafterNames(options->session));
  });
  app.footer(
      "\nExamples:\n"
      "  dspark calibrate -m model.gguf -md drafter.gguf --in held_out.jsonl");
  return [options] { return Run(*options); };
}

}  // namespace dspark

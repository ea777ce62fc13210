// dspark eval: drafters against plain decoding on prompt sets.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "apps/bandwidth.h"
#include "apps/commands.h"
#include "apps/eval_session.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/report_files.h"
#include "apps/session_flags.h"
#include "core/atomic_file.h"
#include "eval/report.h"

namespace dspark {
namespace {

struct EvalOptions {
  EvalSessionOptions session;
  std::vector<std::string> suites;
  std::string suites_dir, json, html;
};

Result<std::vector<Suite>> ReadSuites(const EvalOptions& options) {
  std::vector<std::string> files = options.suites;
  if (!options.suites_dir.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> more, SuiteFiles(options.suites_dir));
    files.insert(files.end(), more.begin(), more.end());
  }
  std::vector<Suite> suites;
  for (const std::string& file : files) {
    DSPARK_ASSIGN_OR_RETURN(Suite suite, ReadSuite(file, {.max_prompts = options.session.max_prompts,
                                                          .max_turns = options.session.max_turns,
                                                          .seed = options.session.rollout.seed}));
    suites.push_back(std::move(suite));
  }
  return suites;
}

EvalResults Describe(const EvalOptions& options, const EvalSession& eval) {
  const Session& session = *eval.session;
  const DraftOptions& draft = options.session.session.draft;
  EvalResults results{
      .model = session.files.config.name.empty() ? session.model_path : session.files.config.name,
      .machine =
          fmt::format("{}, {}, {} threads", CpuName(), IsaName(session.pool->isa()), session.pool->threads()),
      .policy = draft.draft_max >= 0 ? fmt::format("fixed:{}", draft.draft_max) : draft.policy,
      .temperature = double(options.session.rollout.sampling.temperature),
      .max_tokens = options.session.rollout.max_tokens,
      .concurrency = eval.setting->concurrency,
      .max_turns = options.session.max_turns,
      .accept = draft.accept,
      .seed = options.session.rollout.seed,
      .drafters = {}};
  for (const LoadedDrafter& loaded : eval.drafters)
    results.drafters.push_back({loaded.name, loaded.path, loaded.candidate.traits, {}});
  return results;
}

std::string Cell(double value, int width, int digits) {
  return std::isfinite(value) ? fmt::format("{:>{}.{}f}", value, width, digits)
                              : fmt::format("{:>{}}", "-", width);
}

void PrintRow(const std::string& drafter, const std::string& suite, int prompts, const Figures& f) {
  const bool noise = MayBeNoise(f);
  PrintOutput("{:<16} {:<14} {:>5} {} {} {} {} {} {} {}{} {}{}\n", drafter, suite, prompts, Cell(f.tau, 6, 2),
              Cell(f.verify_rate, 6, 2), Cell(f.drafts_per_round, 6, 2), Cell(f.served_tau, 8, 2),
              Cell(f.plain_tok_per_s, 9, 1), Cell(f.spec_tok_per_s, 9, 1), Cell(f.speedup, 8, 2),
              noise ? "?" : " ", Cell(f.median_speedup, 7, 2), noise ? "?" : "");
}

void PrintPositions(const char* what, const std::vector<double>& rates) {
  PrintOutput("  {:<13}", what);
  for (const double rate : rates) PrintOutput(" {}", Cell(rate, 5, 2));
  PrintOutput("\n");
}

void PrintTables(const EvalResults& results) {
  const bool lookup =
      std::ranges::any_of(results.drafters, [](const DrafterResult& d) { return d.traits.with_lookup; });
  PrintOutput("{} prompts, {} answers; temperature {:g}, sampled drafts served by {}, seed {}\n\n",
              results.Prompts(), results.Answers(), results.temperature, results.accept, results.seed);
  PrintOutput("{:<16} {:<14} {:>5} {:>6} {:>6} {:>6} {:>8} {:>9} {:>9} {:>8}  {:>7}\n", "drafter", "suite",
              "n", "tau", "verify", "drafts", "served", "plain t/s", "spec t/s", "speed-up", "median");
  bool noise = false;
  for (const DrafterResult& drafter : results.drafters) {
    std::vector<Figures> all;
    for (const SuiteResult& suite : drafter.suites) {
      all.push_back(FiguresOf(suite));
      PrintRow(drafter.name, suite.suite, suite.prompts, all.back());
    }
    all.push_back(MeanFigures(all));
    PrintRow(drafter.name, "mean", results.Prompts(), all.back());
    noise = noise || std::ranges::any_of(all, MayBeNoise);
  }
  if (noise) {
    PrintOutput(
        "?: may be noise, a sign test over the groups of prompts cannot tell it from equal speed; give more "
        "prompts\n");
  }
  PrintOutput("\nacceptance by position, whole blocks{}\n",
              lookup ? ", without those that prompt lookup drafted" : "");
  for (const DrafterResult& drafter : results.drafters) {
    for (const SuiteResult& suite : drafter.suites) {
      const Figures f = FiguresOf(suite);
      PrintOutput("{} on {}\n", drafter.name, suite.suite);
      PrintPositions("unconditional", f.unconditional);
      PrintPositions("conditional", f.conditional);
      PrintOutput("  {:<13}", "of rounds");
      for (const AcceptanceStats own = suite.OwnRounds(); const int64_t rounds : own.reached_at)
        PrintOutput(" {:>5}", rounds);
      PrintOutput("\n");
    }
  }
}

Result<int> Run(const EvalOptions& options) {
  DSPARK_RETURN_IF_ERROR(CheckReportFiles(options.json, options.html));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<Suite> suites, ReadSuites(options));
  DSPARK_ASSIGN_OR_RETURN(const auto eval, EvalSession::Open(options.session));
  EvalResults results = Describe(options, *eval);
  ProgressLine line;
  for (const Suite& suite : suites) {
    DSPARK_ASSIGN_OR_RETURN(std::vector<SuiteResult> found,
                            EvaluateSuite(*eval->setting, suite, eval->Candidates(),
                                          [&](int done) { ShowProgress(suite, done, &line); }));
    for (size_t d = 0; d < found.size(); ++d) results.drafters[d].suites.push_back(std::move(found[d]));
    // What is done so far is kept: an evaluation may run for hours.
    DSPARK_RETURN_IF_ERROR(WriteReport(options.json, ToJson(results).dump(1) + "\n"));
    DSPARK_RETURN_IF_ERROR(WriteReport(options.html, RenderReport(results)));
  }
  PrintTables(results);
  if (results.Answers() == 0) {
    return MakeError(
        "none of the {} prompts fits into {} tokens, so nothing was measured; give a larger --ctx",
        results.Prompts(), eval->session->target->limits().max_context);
  }
  if (results.temperature > 0) return kExitOk;
  if (const int different = results.Different(); different > 0) {
    PrintMessage("dspark: {} greedy answers differ from plain decoding's; this is a bug, please report it\n",
                 different);
    return kExitFailed;
  }
  PrintOutput("\nall greedy answers ({} by every drafter) are plain decoding's, token for token\n",
              results.Answers());
  return kExitOk;
}

}  // namespace

Command AddEval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  AddEvalSessionFlags(app, &options->session);
  AddPolicyFlags(app, &options->session.session.draft);
  app.add_flag("--lookup", options->session.with_lookup, "Prompt lookup beside every trained drafter");
  AddRepeatedText(app, "--suite", &options->suites,
                  "Prompts: JSON lines with turns, messages or conversations; may be repeated");
  app.add_option("--suites", options->suites_dir, "A folder of such files, *.jsonl and *.jsonl.gz");
  app.add_option("--json", options->json, "Write all figures to this file");
  app.add_option("--html", options->html, "Write a report to this file: one page, nothing beside it");
  app.final_callback([options] {
    if (options->suites.empty() && options->suites_dir.empty())
      throw CLI::ValidationError("no prompts to measure on", "give --suite FILE or --suites DIR");
    if (options->session.session.draft.policy == "off") {
      throw CLI::ValidationError("--policy off",
                                 "nothing would be measured; fixed:0 makes drafts and verifies none");
    }
    RequireOk(CheckDrafterNames(options->session));
    RequireOk(CheckApart(options->json, options->html));
  });
  app.footer(
      "\nExamples:\n"
      "  dspark eval -md lookup -md table.gguf --suite prompts.jsonl --html report.html\n"
      "  dspark eval -m model.gguf -md old=a.gguf -md new=b.gguf --suites prompts");
  return [options] { return Run(*options); };
}

}  // namespace dspark

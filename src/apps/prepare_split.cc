// dspark prepare split: conversations to training and held-out prompts.
#include <CLI/CLI.hpp>
#include <memory>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/prepare.h"
#include "data/split.h"

namespace dspark {
namespace {

Result<int> Run(const SplitOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const SplitSummary summary, Split(options));
  for (const std::string& row : summary.first_rejected) PrintMessage("{}\n", row);
  if (summary.rejected > 0) {
    PrintMessage("{} rows cannot be used: {}/split_rejected.jsonl has them all with the reasons\n",
                 summary.rejected, options.out);
  }
  PrintOutput("{0}/train.jsonl: {1} rows\n{0}/held_out.jsonl: {2} rows\n", options.out, summary.train,
              summary.held_out);
  if (summary.filtered > 0) PrintOutput("left out by domain or license: {}\n", summary.filtered);
  return kExitOk;
}

}  // namespace

Command AddPrepareSplit(CLI::App& app) {
  auto options = std::make_shared<SplitOptions>();
  app.add_option("in", options->inputs,
                 "JSONL, also .gz: rows with \"conversations\" or \"messages\", ShareGPT's or OpenAI's way")
      ->required();
  app.add_option("--out", options->out, "Directory for train.jsonl and held_out.jsonl")->required();
  app.add_option("--held-out", options->held_out, "Share of the rows that is held out [0.05]")
      ->check(Within(0, 1));
  app.add_option("--seed", options->seed, "Of the choice of held-out rows, which depends on ids only [42]")
      ->check(SeedNumber());
  app.add_option("--max-samples", options->max_samples, "Stop after so many rows [all]")
      ->check(CLI::PositiveNumber);
  AddRepeatedText(app, "--domain", &options->domains, "Only rows of this \"domain\"; may be repeated");
  AddRepeatedText(app, "--without-license", &options->without_licenses,
                  "Leave out rows whose \"license\" contains this text; may be repeated");
  app.add_flag("--keep-system", options->keep_system, "Keep a system message at the beginning");
  app.add_flag("--force", options->force, "Replace outputs that exist");
  app.footer(
      "\nExamples:\n"
      "  dspark prepare split chats.jsonl --out data");
  return [options] { return Run(*options); };
}

}  // namespace dspark

// What it costs to draw drafts from the likeliest candidates of each slot only: τ by number of candidates.
//
//   candidate_tau TARGET DRAFTER PROMPTS.jsonl... [--per-set N] [--tokens N] [--temp T] [--candidates 8,64,0]
//
// 0 candidates: the whole vocabulary, every one corrected by the Markov head. Fixed full-length proposals,
// one sequence, no prompt lookup; both accept rules.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iterator>

#include "draft/registry.h"
#include "engine/engine.h"
#include "prompts.h"

namespace dspark {
namespace {

struct Options {
  std::string target, drafter;
  std::vector<std::string> files;
  std::vector<int> candidates = {8, 64, 512, 0};
  int per_set = 10, tokens = 128;
  float temperature = 1;
};

double Tau(Target& target, BlockPool& blocks, Drafter& drafter, const Options& options, bool by_block,
           const std::vector<std::vector<int32_t>>& prompts) {
  Engine engine(target, blocks, &drafter, nullptr, {},
                {.max_sequences = 1, .fixed_draft = drafter.max_tokens(), .accept_blocks = by_block});
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request request;
    request.prompt = prompts[i];
    request.sampling.temperature = options.temperature;
    request.seed = i;
    request.max_tokens = options.tokens;
    Must(engine.Submit(request));
  }
  int rounds = 0, committed = 0;
  while (!engine.Idle()) {
    for (const TokenEvent& event : engine.Step()) {
      if (!event.stats) continue;
      rounds += event.stats->rounds;
      committed += event.stats->committed;
    }
  }
  return double(committed) / std::max(1, rounds);
}

void Run(const Options& options) {
  const ModelFiles files = Must(OpenModel(options.target));
  const DrafterFiles drafter_files = Must(OpenDrafter(options.drafter));
  ThreadPool pool(UsableCores());
  const auto target = Must(LoadTarget(files, pool, {.max_context = 2048, .max_taps = 8}));
  BlockPool blocks(target->kv_layout(), 64);
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& path : options.files)
    std::ranges::move(ReadPrompts(files, path, options.per_set, 2000 - options.tokens),
                      std::back_inserter(prompts));
  fmt::print("{} prompts, temperature {}\n\n| candidates | τ by block | τ by token |\n|---|---|---|\n",
             prompts.size(), options.temperature);
  for (const int candidates : options.candidates) {
    const auto drafter =
        Must(LoadDrafter(drafter_files, *target, pool, {.max_context = 2048, .candidates = candidates}));
    const double by_block = Tau(*target, blocks, *drafter, options, true, prompts);
    const double by_token = Tau(*target, blocks, *drafter, options, false, prompts);
    fmt::print("| {} | {:.3f} | {:.3f} |\n", candidates ? std::to_string(candidates) : "all", by_block,
               by_token);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  dspark::Options options;
  CLI::App app{"Acceptance by number of candidates"};
  app.add_option("target", options.target)->required();
  app.add_option("drafter", options.drafter)->required();
  app.add_option("files", options.files)->required();
  app.add_option("--per-set", options.per_set);
  app.add_option("--tokens", options.tokens);
  app.add_option("--temp", options.temperature);
  app.add_option("--candidates", options.candidates)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  dspark::Run(options);
  return 0;
}

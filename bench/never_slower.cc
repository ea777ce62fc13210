// Speculation against plain decoding on real prompts: prompt lookup, a source whose drafts are all wrong, and
// an untrained DSpark (two layers of random weights in int8, five taps, rank 64, confidence head, 4-bit
// head).
//
//   never_slower MODEL PROMPTS.jsonl... [--per-set N] [--tokens N] [--runs N] [--temp T]
//
// One sequence; greedy unless --temp. Every prompt is run plain and with each source in turn, `--runs` times
// (default 5), so that what disturbs the machine disturbs all alike. A set's figure is the median over runs
// of the ratio of its decode times per token. Replies must equal the plain one token for token (with --temp:
// those whose drafts are one-hot), or the program fails.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "draft/prompt_lookup.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "engine/engine.h"
#include "prompts.h"

namespace dspark {
namespace {

// Always proposes, never right: a token no reply contains.
class UselessDrafter : public Drafter {
 public:
  explicit UselessDrafter(int32_t token) : token_(token) {}
  int max_tokens() const override { return 7; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& r : requests) r.proposal->tokens.assign(std::min(r.max_tokens, 7), token_);
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}

 private:
  int32_t token_;
};

struct Options {
  std::string model;
  std::vector<std::string> files;
  int per_set = 5, tokens = 128, runs = 5;
  float temperature = 0;
};

struct Bench {
  ModelFiles files;
  ThreadPool pool{UsableCores()};
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
  CostTable costs;
  std::unique_ptr<Drafter> untrained;
};

DrafterConfig UntrainedDSpark(const ModelConfig& target) {
  DrafterConfig c;
  c.backbone = target;
  c.backbone.architecture = "qwen3";
  c.backbone.layers = 2;
  c.backbone.rope_interleaved = false;
  c.target_width = target.d_model;
  c.target_vocab = target.vocab;
  for (int i = 0; i < 5; ++i) c.taps.push_back(1 + i * (target.layers - 4) / 4);
  c.block_size = 7;
  c.mask_token = 0;
  c.markov = MarkovHead::kVanilla;
  c.markov_rank = 64;
  c.confidence = c.confidence_with_markov = true;
  return c;
}

struct Total {
  double ms = 0;
  int tokens = 0, rounds = 0, accepted = 0;
  double Rate() const { return tokens * 1000.0 / ms; }  // tokens per second
};

void Run(Bench& bench, Drafter* drafter, const std::vector<int32_t>& prompt, const Options& options,
         Total* total, std::vector<int32_t>* reply) {
  Engine engine(*bench.target, *bench.blocks, drafter, nullptr, bench.costs, {.max_sequences = 1});
  Request request;
  request.prompt = prompt;
  request.sampling.temperature = options.temperature;
  request.seed = 1;
  request.max_tokens = options.tokens;
  if (!engine.Submit(request).ok()) std::abort();
  while (!engine.Idle()) {
    for (const TokenEvent& event : engine.Step()) {
      reply->push_back(event.token);
      if (!event.stats) continue;
      total->ms += event.stats->decode_ms;
      total->tokens += event.stats->completion_tokens - 1;
      total->rounds += event.stats->rounds;
      total->accepted += event.stats->accepted;
    }
  }
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

void RunSet(Bench& bench, const Options& options, const std::string& path) {
  const auto prompts = ReadPrompts(bench.files, path, options.per_set, 1500);
  UselessDrafter useless(0);
  std::vector<double> rate, lookup_ratio, useless_ratio, untrained_ratio;
  double tau = 0;
  for (int run = 0; run < options.runs; ++run) {
    Total plain, lookup, wrong, untrained;
    PromptLookup source;
    for (const auto& prompt : prompts) {
      std::vector<int32_t> replies[4];
      Run(bench, nullptr, prompt, options, &plain, &replies[0]);
      Run(bench, &source, prompt, options, &lookup, &replies[1]);
      Run(bench, &useless, prompt, options, &wrong, &replies[2]);
      Run(bench, bench.untrained.get(), prompt, options, &untrained, &replies[3]);
      const bool sampled = options.temperature > 0;
      if (replies[1] != replies[0] || replies[2] != replies[0] || (!sampled && replies[3] != replies[0])) {
        std::fprintf(stderr, "%s: a speculative reply differs from the plain one\n", path.c_str());
        std::exit(1);
      }
    }
    rate.push_back(plain.Rate());
    lookup_ratio.push_back(lookup.Rate() / plain.Rate());
    useless_ratio.push_back(wrong.Rate() / plain.Rate());
    untrained_ratio.push_back(untrained.Rate() / plain.Rate());
    tau = double(lookup.accepted + lookup.rounds) / std::max(1, lookup.rounds);
  }
  fmt::print("| {} | {} | {:.0f} | {:.2f} | {:.2f}× | {:.2f}× | {:.2f}× |\n",
             std::filesystem::path(path).stem().string(), prompts.size(), Median(rate), tau,
             Median(lookup_ratio), Median(useless_ratio), Median(untrained_ratio));
  std::fflush(stdout);
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  using namespace dspark;
  Options options;
  CLI::App app{"Speculation against plain decoding on real prompts"};
  app.add_option("model", options.model)->required();
  app.add_option("files", options.files)->required();
  app.add_option("--per-set", options.per_set);
  app.add_option("--tokens", options.tokens);
  app.add_option("--runs", options.runs);
  app.add_option("--temp", options.temperature);
  CLI11_PARSE(app, argc, argv);
  Bench bench;
  bench.files = Must(OpenModel(options.model));
  bench.target = LoadTarget(bench.files, bench.pool, {.max_context = 2048, .max_taps = 5}).value();
  bench.blocks = std::make_unique<BlockPool>(bench.target->kv_layout(), 64);
  bench.costs = MeasureCosts(*bench.target, *bench.blocks);
  bench.untrained =
      LoadDrafter(RandomDrafter(UntrainedDSpark(bench.files.config), 1), *bench.target, bench.pool,
                  {.max_context = 2048, .weights = WeightFormat::kInt8, .own_int4_head = true})
          .value();
  fmt::print(
      "| set | prompts | plain tok/s | lookup τ | lookup | useless drafts | untrained DSpark "
      "|\n|---|---|---|---|---|---|---|\n");
  for (const std::string& path : options.files) RunSet(bench, options, path);
  return 0;
}

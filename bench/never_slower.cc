// Speculation against plain decoding on real prompts: prompt lookup, a source whose drafts are all wrong, and
// an untrained DSpark (two layers of random weights in int8, five taps, rank 64, confidence head, 4-bit
// head).
//
//   never_slower MODEL PROMPTS.jsonl... [--per-set N] [--tokens N] [--runs N] [--temp T] [--fresh]
//
// One sequence; greedy unless --temp. Every prompt is run plain and with each source in turn, `--runs` times
// (default 5), so that what disturbs the machine disturbs all alike. A set's figure is the median over runs
// of the ratio of its decode times per token. Replies must equal the plain one token for token (with --temp:
// those whose drafts are one-hot), or the program fails. A run of a set is one engine for each source, as a
// server or a chat has it; with --fresh every reply has a new one, which has yet to learn what drafts are
// worth.
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
  bool fresh = false;
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

// One source of drafts over a run of a set.
struct Contender {
  Drafter* drafter = nullptr;
  std::unique_ptr<Engine> engine;
  double ms = 0;
  int tokens = 0, rounds = 0, committed = 0;
  std::vector<int32_t> reply;  // the newest

  double Rate() const { return tokens * 1000.0 / ms; }  // tokens per second
};

void Run(Bench& bench, const std::vector<int32_t>& prompt, const Options& options, Contender* c) {
  if (!c->engine || options.fresh) {
    c->engine = std::make_unique<Engine>(*bench.target, *bench.blocks, c->drafter, nullptr, bench.costs,
                                         EngineOptions{.max_sequences = 1});
  }
  Request request;
  request.prompt = prompt;
  request.sampling.temperature = options.temperature;
  request.seed = 1;
  request.max_tokens = options.tokens;
  if (!c->engine->Submit(request).ok()) std::abort();
  c->reply.clear();
  while (!c->engine->Idle()) {
    for (const TokenEvent& event : c->engine->Step()) {
      c->reply.push_back(event.token);
      if (!event.stats) continue;
      c->ms += event.stats->decode_ms;
      c->tokens += event.stats->completion_tokens - 1;
      c->rounds += event.stats->rounds;
      c->committed += event.stats->committed;
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
  PromptLookup lookup;
  Drafter* const sources[] = {&lookup, &useless, bench.untrained.get()};
  std::vector<double> rate, tau, ratio[3];
  for (int run = 0; run < options.runs; ++run) {
    Contender plain, contenders[3];
    for (int i = 0; i < 3; ++i) contenders[i].drafter = sources[i];
    for (const auto& prompt : prompts) {
      Run(bench, prompt, options, &plain);
      for (Contender& c : contenders) {
        Run(bench, prompt, options, &c);
        const bool exact = options.temperature == 0 || c.drafter != bench.untrained.get();
        if (!exact || c.reply == plain.reply) continue;
        std::fprintf(stderr, "%s: a speculative reply differs from the plain one\n", path.c_str());
        std::exit(1);
      }
    }
    rate.push_back(plain.Rate());
    tau.push_back(double(contenders[0].committed) / std::max(1, contenders[0].rounds));
    for (int i = 0; i < 3; ++i) ratio[i].push_back(contenders[i].Rate() / plain.Rate());
  }
  fmt::print("| {} | {} | {:.0f} | {:.2f} | {:.2f}× | {:.2f}× | {:.2f}× |\n",
             std::filesystem::path(path).stem().string(), prompts.size(), Median(rate), Median(tau),
             Median(ratio[0]), Median(ratio[1]), Median(ratio[2]));
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
  app.add_flag("--fresh", options.fresh);
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

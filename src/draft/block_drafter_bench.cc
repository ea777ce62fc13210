// A draft round beside a one-row step of its target, both with random weights and the default model's sizes
// and formats: SmolLM2-135M in 4 bits with an int8 embedding; a DSpark of two layers in int8 or int4 with a
// 4-bit head.
//
// A round sees three new rows per sequence (what a verify accepts on average) and drafts seven tokens.
// Between rounds the target's step runs, so that no weights of the drafter are left in the caches. Counters
// are the least of all rounds, which other programs on the machine disturb least; `Time` is the mean.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "draft/block_drafter.h"
#include "draft/random_weights.h"

namespace dspark {
namespace {

constexpr int kRowsPerRound = 3, kContext = 200, kMaxContext = 2048;

ModelConfig Smol() {
  ModelConfig c;
  c.architecture = "llama";
  c.layers = 30;
  c.d_model = 576;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.d_ffn = 1536;
  c.vocab = 49152;
  c.max_context = 8192;
  c.rope_theta = 1e5f;
  c.tied_embeddings = true;
  return c;
}

// `vocab`: of the drafter's head, its likeliest tokens being the target's first.
DrafterConfig DSpark(int vocab, MarkovHead markov) {
  DrafterConfig c;
  c.backbone = Smol();
  c.backbone.layers = 2;
  c.backbone.vocab = vocab;
  c.target_width = c.backbone.d_model;
  c.target_vocab = Smol().vocab;
  c.taps = {1, 8, 14, 20, 27};
  c.block_size = 7;
  c.mask_token = 0;
  c.markov = markov;
  c.markov_rank = 64;
  c.confidence = c.confidence_with_markov = true;
  for (int v = 0; v < vocab && vocab < c.target_vocab; ++v) c.draft_to_target.push_back(v);
  return c;
}

struct Bench {
  Bench(int threads, const DrafterConfig& config, WeightFormat weights) : pool(threads) {
    target =
        LoadTarget(
            RandomModel(Smol(), 1), pool,
            {.max_rows = 128, .max_context = kMaxContext, .max_taps = 5, .weights = WeightFormat::kInt4Min})
            .value();
    drafter =
        LoadDrafter(
            RandomDrafter(config, 2), *target, pool,
            {.max_sequences = 16, .max_context = kMaxContext, .weights = weights, .own_int4_head = true})
            .value();
    blocks = std::make_unique<BlockPool>(target->kv_layout(), kMaxContext / 32);
    taps.resize(size_t(kRowsPerRound) * config.taps.size() * size_t(config.target_width));
    for (size_t i = 0; i < taps.size(); ++i) taps[i] = float(i * 2654435761u % 1000) / 500 - 1;
  }

  void Observe(int sequences) {
    const int32_t next[kRowsPerRound] = {11, 13, 17};
    for (int s = 0; s < sequences; ++s) {
      const ObservedRows rows{.sequence = s,
                              .position = position,
                              .next = next,
                              .taps = taps.data(),
                              .taps_stride = taps.size() / kRowsPerRound};
      drafter->Observe({&rows, 1});
    }
    position += kRowsPerRound;
  }
  // The sequences of the drafter again from an empty context.
  void Restart(int sequences) {
    for (int s = 0; s < sequences; ++s) {
      if (position > 0) drafter->End(s);
      drafter->Begin(s, {});
    }
    for (position = 0; position < kContext;) Observe(sequences);
  }
  void Step(KvTable& kv) {
    DSPARK_CHECK(kv.Reserve(kContext + 1));
    const int32_t token = 42;
    const Segment segment{.tokens = {&token, 1}, .position = kContext, .kv = &kv};
    target->Forward({&segment, 1}, {});
  }

  ThreadPool pool;
  std::unique_ptr<Target> target;
  std::unique_ptr<Drafter> drafter;
  std::unique_ptr<BlockPool> blocks;
  std::vector<float> taps;
  int position = 0;
};

double MsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Arguments: threads, sequences, vocabulary of the drafter's head, Markov head, bits of its layers.
void BM_DraftRound(benchmark::State& state) {
  const int sequences = int(state.range(1));
  Bench bench(int(state.range(0)), DSpark(int(state.range(2)), MarkovHead(state.range(3))),
              state.range(4) == 4 ? WeightFormat::kInt4Min : WeightFormat::kInt8);
  KvTable kv(*bench.blocks);
  std::vector<Proposal> proposals(static_cast<size_t>(sequences));
  std::vector<ProposeRequest> requests;
  for (int s = 0; s < sequences; ++s)
    requests.push_back({.sequence = s, .max_tokens = 7, .proposal = &proposals[size_t(s)]});
  bench.Restart(sequences);
  bench.drafter->Propose(requests);
  std::vector<double> steps, rounds, parts[4];
  const BlockTimes& times = static_cast<BlockDrafter&>(*bench.drafter).times();
  for (auto _ : state) {
    if (bench.position > kMaxContext - 16) bench.Restart(sequences);
    auto start = std::chrono::steady_clock::now();
    bench.Step(kv);
    steps.push_back(MsSince(start));
    for (Proposal& proposal : proposals) proposal.Clear();
    bench.Observe(sequences);
    const BlockTimes before = times;
    start = std::chrono::steady_clock::now();
    bench.drafter->Propose(requests);
    rounds.push_back(MsSince(start));
    state.SetIterationTime(rounds.back() / 1e3);
    parts[0].push_back(times.flush - before.flush);
    parts[1].push_back(times.layers - before.layers);
    parts[2].push_back(times.head - before.head);
    parts[3].push_back(times.chain - before.chain);
  }
  const auto least = [](const std::vector<double>& x) { return *std::min_element(x.begin(), x.end()); };
  const auto median = [](std::vector<double> x) {
    std::nth_element(x.begin(), x.begin() + int64_t(x.size() / 2), x.end());
    return x[x.size() / 2];
  };
  state.counters["step_ms"] = least(steps);
  state.counters["round_ms"] = least(rounds);
  state.counters["of_step"] = least(rounds) / least(steps);
  state.counters["of_step_median"] = median(rounds) / median(steps);
  const char* names[] = {"flush_ms", "layers_ms", "head_ms", "chain_ms"};
  for (size_t i = 0; i < 4; ++i) state.counters[names[i]] = least(parts[i]);
  for (int s = 0; s < sequences; ++s) bench.drafter->End(s);
}
BENCHMARK(BM_DraftRound)
    ->ArgsProduct({{2}, {1, 16}, {8192, 16384, 49152}, {int(MarkovHead::kVanilla)}, {4, 8}})
    ->Args({2, 1, 16384, int(MarkovHead::kGated), 4})
    ->Args({2, 1, 16384, int(MarkovHead::kRnn), 4})
    ->ArgsProduct({{1}, {1, 16}, {49152}, {int(MarkovHead::kVanilla)}, {4}})
    ->Iterations(200)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dspark

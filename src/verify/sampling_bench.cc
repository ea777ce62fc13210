#include <benchmark/benchmark.h>

#include "core/rng.h"
#include "verify/sampling.h"

namespace dspark {
namespace {

constexpr int kVocab = 49152;

// Shaped like a language model's: a normal bulk with an exponential tail of likely tokens.
std::vector<float> Logits(uint64_t seed) {
  std::vector<float> logits;
  for (uint64_t i = 0; i < kVocab; ++i) {
    float sum = 0;
    for (uint32_t k = 0; k < 4; ++k) sum += UniformFloat(seed, i, Purpose::kTest, k) - 0.5f;
    logits.push_back(3.5f * sum + (i % 997 == 0 ? 10 * UniformFloat(seed, i, Purpose::kTest, 4) : 0));
  }
  return logits;
}

void Serve(benchmark::State& state, const SamplingParams& params) {
  const auto logits = Logits(1);
  auto row = logits;
  Distribution out;
  for (auto _ : state) {
    ServedDistribution(DetectIsa(), row, params, nullptr, &out);
    benchmark::DoNotOptimize(out.probs.data());
  }
  state.counters["survivors"] = double(out.ids.size());
}

BENCHMARK_CAPTURE(Serve, greedy, SamplingParams{.temperature = 0});
BENCHMARK_CAPTURE(Serve, temperature, SamplingParams{.temperature = 0.8f});
BENCHMARK_CAPTURE(Serve, top_k_40, SamplingParams{.temperature = 0.8f, .top_k = 40});
BENCHMARK_CAPTURE(Serve, top_k_40_top_p_95, SamplingParams{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f});
BENCHMARK_CAPTURE(Serve, top_p_95, SamplingParams{.temperature = 0.8f, .top_p = 0.95f});
BENCHMARK_CAPTURE(Serve, hot_top_p_95, SamplingParams{.temperature = 3, .top_p = 0.95f});
BENCHMARK_CAPTURE(Serve, min_p_05, SamplingParams{.temperature = 0.8f, .min_p = 0.05f});

void Sample(benchmark::State& state) {
  auto row = Logits(1);
  Distribution out;
  ServedDistribution(DetectIsa(), row, {}, nullptr, &out);
  uint64_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(out.Sample(UniformDouble(1, ++i, Purpose::kTest)));
}
BENCHMARK(Sample);

}  // namespace
}  // namespace dspark

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/ops.h"
#include "kernels/rope.h"

namespace dspark {
namespace {

std::vector<float> Random(int64_t n, float spread) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(generator);
  return x;
}

// Argument: values. `op(isa, x, y)` runs once.
template <class Op>
void Run(benchmark::State& state, Isa isa, Op op) {
  if (!IsaSupported(isa)) return state.SkipWithError("not supported here");
  std::vector<float> x = Random(state.range(0), 4), y = x;
  for (auto _ : state) {
    op(isa, x, y);
    benchmark::ClobberMemory();
  }
}

void BM_ArgMax(benchmark::State& state, Isa isa) {
  Run(state, isa, [](Isa i, auto& x, auto&) { benchmark::DoNotOptimize(ArgMax(i, x)); });
}
void BM_Softmax(benchmark::State& state, Isa isa) {
  Run(state, isa, [](Isa i, auto& x, auto& y) { Softmax(i, x, 1.25f, y.data()); });
}
void BM_LogSumExp(benchmark::State& state, Isa isa) {
  Run(state, isa, [](Isa i, auto& x, auto&) { benchmark::DoNotOptimize(LogSumExp(i, x)); });
}
void BM_TopK40(benchmark::State& state, Isa isa) {
  Run(state, isa, [](Isa i, auto& x, auto& y) {
    int32_t ids[40];
    TopK(i, x, 40, ids, y.data());
  });
}
void BM_RmsNorm(benchmark::State& state, Isa isa) {
  Run(state, isa,
      [](Isa i, auto& x, auto& y) { RmsNorm(i, x.data(), x.data(), int(x.size()), 1e-5f, y.data()); });
}
void BM_SwiGlu(benchmark::State& state, Isa isa) {
  Run(state, isa, [](Isa i, auto& x, auto& y) {
    y[0] = 1;
    SwiGlu(i, y.data(), x.data(), int(x.size()));
  });
}
void BM_Rope(benchmark::State& state, Isa isa) {
  const RopeTable table(128, 64, 10000);
  Run(state, isa,
      [&](Isa i, auto& x, auto&) { Rope(i, x.data(), int(x.size()) / 64, 64, table.Row(100), true); });
}

#define DSPARK_BENCH(name, ...)                     \
  BENCHMARK_CAPTURE(name, avx512, Isa::kAvx512Vnni) \
      ->ArgsProduct({{__VA_ARGS__}})                \
      ->Unit(benchmark::kMicrosecond);              \
  BENCHMARK_CAPTURE(name, avx2, Isa::kAvx2)->ArgsProduct({{__VA_ARGS__}})->Unit(benchmark::kMicrosecond)
DSPARK_BENCH(BM_ArgMax, 49152, 151936);
DSPARK_BENCH(BM_Softmax, 49152, 151936);
DSPARK_BENCH(BM_LogSumExp, 49152);
DSPARK_BENCH(BM_TopK40, 49152, 151936);
DSPARK_BENCH(BM_RmsNorm, 576, 2048);
DSPARK_BENCH(BM_SwiGlu, 1536, 8192);
DSPARK_BENCH(BM_Rope, 768);

void BM_RopeTable(benchmark::State& state) {
  for (auto _ : state) RopeTable(8192, 64, 100000);
}
BENCHMARK(BM_RopeTable)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dspark

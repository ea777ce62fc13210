// One layer's attention of SmolLM2-135M's shape (9 query heads, 3 KV heads of 64).
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/attention.h"

namespace dspark {
namespace {

// Arguments: rows, context (positions before and with the rows), threads.
void BM_Attention(benchmark::State& state, Isa isa, KvType type) {
  if (!IsaSupported(isa)) return state.SkipWithError("not supported here");
  const int rows = int(state.range(0)), context = int(state.range(1)), threads = int(state.range(2));
  const AttentionShape shape = {
      {.layers = 1, .kv_heads = 3, .head_dim = 64, .block_tokens = 32, .type = type}, 9, 0.125f};
  const size_t width = size_t(shape.heads) * 64, kv_width = 3 * 64;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> q(size_t(rows) * width), out(q), k(size_t(context) * kv_width), v(k);
  for (auto* x : {&q, &k, &v}) {
    for (float& value : *x) value = normal(generator);
  }
  const size_t block_count = size_t(context + 31) / 32;
  std::vector<std::vector<std::byte>> memory(block_count, std::vector<std::byte>(shape.layout.BlockBytes()));
  std::vector<std::byte*> blocks;
  for (auto& block : memory) blocks.push_back(block.data());

  ThreadPool pool(threads, isa);
  AttentionWorkspace workspace(shape, rows, context, threads);
  const AttentionSegment all = {blocks, 0, context, 0}, segment = {blocks, 0, rows, context - rows};
  pool.Run([&](Worker& worker) {
    StoreKv(worker, shape.layout, 0, {&all, 1}, k.data(), v.data(), kv_width);
  });
  for (auto _ : state) {
    pool.Run([&](Worker& worker) {
      for (int i = 0; i < 10; ++i) {
        Attention(worker, shape, 0, {&segment, 1}, q.data(), width, out.data(), width, workspace);
        worker.Barrier();
      }
    });
  }
  double pairs = 0;  // (row, key) pairs that count
  for (int i = 0; i < rows; ++i) pairs += context - rows + i + 1;
  state.counters["us"] =
      benchmark::Counter(10e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["GFMA/s"] =
      benchmark::Counter(10e-9 * pairs * 9 * 64 * 2, benchmark::Counter::kIsIterationInvariantRate);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int threads : {1, 2}) {
    bench->Args({1, 128, threads})->Args({1, 512, threads})->Args({1, 2048, threads});
    bench->Args({4, 512, threads})
        ->Args({8, 512, threads})
        ->Args({16, 512, threads})
        ->Args({512, 512, threads});
  }
  bench->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(BM_Attention, avx512, Isa::kAvx512Vnni, KvType::kF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Attention, avx512_f32, Isa::kAvx512Vnni, KvType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Attention, avx2, Isa::kAvx2, KvType::kF16)->Apply(Shapes);

void BM_StoreKv(benchmark::State& state) {
  const int rows = int(state.range(0));
  const KvLayout layout = {.layers = 1, .kv_heads = 3, .head_dim = 64, .block_tokens = 32};
  std::vector<float> k(size_t(rows) * 192, 0.5f);
  std::vector<std::vector<std::byte>> memory(size_t(rows + 31) / 32,
                                             std::vector<std::byte>(layout.BlockBytes()));
  std::vector<std::byte*> blocks;
  for (auto& block : memory) blocks.push_back(block.data());
  const AttentionSegment segment = {blocks, 0, rows, 0};
  ThreadPool pool(1);
  for (auto _ : state) {
    pool.Run([&](Worker& worker) { StoreKv(worker, layout, 0, {&segment, 1}, k.data(), k.data(), 192); });
  }
}
BENCHMARK(BM_StoreKv)->Arg(1)->Arg(8)->Arg(512)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace dspark

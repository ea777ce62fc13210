#include <benchmark/benchmark.h>

#include "core/thread_pool.h"

namespace dspark {
namespace {

// Time of one barrier, with every worker arriving at once.
void BM_Barrier(benchmark::State& state) {
  ThreadPool pool(int(state.range(0)));
  constexpr int kBarriers = 1000;
  for (auto _ : state) {
    pool.Run([](Worker& worker) {
      for (int i = 0; i < kBarriers; ++i) worker.Barrier();
    });
  }
  state.counters["barrier"] = benchmark::Counter(double(state.iterations()) * kBarriers,
                                                 benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Barrier)->Arg(1)->Arg(2)->Arg(4)->UseRealTime();

// Time of an empty job while the workers still spin.
void BM_Run(benchmark::State& state) {
  ThreadPool pool(int(state.range(0)));
  for (auto _ : state) pool.Run([](Worker&) {});
}
BENCHMARK(BM_Run)->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
}  // namespace dspark

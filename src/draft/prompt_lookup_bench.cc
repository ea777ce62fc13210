#include <benchmark/benchmark.h>

#include <cmath>

#include "core/rng.h"
#include "draft/prompt_lookup.h"

namespace dspark {
namespace {

// Zipf-like tokens, so that the chains of common n-grams are long.
std::vector<int32_t> Text(int length) {
  std::vector<int32_t> text;
  for (uint64_t i = 0; int(i) < length; ++i) {
    text.push_back(int32_t(std::exp(UniformDouble(1, i, Purpose::kTest) * std::log(50.0))));
  }
  return text;
}

void BM_Begin(benchmark::State& state) {
  const auto text = Text(int(state.range(0)));
  PromptLookup lookup;
  for (auto _ : state) lookup.Begin(1, text);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Begin)->Arg(1000)->Arg(100000);

// One round of decoding: a proposal, then one committed token.
void BM_Round(benchmark::State& state) {
  PromptLookup lookup;
  lookup.Begin(1, Text(int(state.range(0))));
  const auto next = Text(4096);
  Proposal proposal;
  size_t i = 0;
  for (auto _ : state) {
    proposal.Clear();
    ProposeRequest request{1, 16, &proposal};
    lookup.Propose({&request, 1});
    const ObservedRows rows{
        .sequence = 1, .next = std::span(next).subspan(i++ % next.size(), 1), .committed = 1};
    lookup.Observe({&rows, 1});
  }
}
BENCHMARK(BM_Round)->Arg(100)->Arg(10000)->Arg(1000000)->Iterations(20000);

}  // namespace
}  // namespace dspark

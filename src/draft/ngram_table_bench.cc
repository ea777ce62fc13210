#include <benchmark/benchmark.h>

#include <filesystem>

#include "core/rng.h"
#include "core/token_hash.h"
#include "draft/ngram_table.h"

namespace dspark {
namespace {

constexpr int kVocab = 49152;

// A table of contexts of one to four tokens that all lead on, so that proposals are as long as may be.
NgramFile MakeTable(int entries) {
  std::vector<NgramEntry> all;
  for (uint64_t i = 0; int(i) < entries; ++i) {
    const auto token = [&](uint64_t k) { return int32_t(UniformDouble(k, i, Purpose::kTest) * kVocab); };
    uint64_t hash = kEmptyContextHash;
    for (uint64_t k = 0; k <= i % 4; ++k) {
      const int32_t context = i < kVocab && k == 0 ? int32_t(i) : token(k);
      hash = HashTokens(hash, {&context, 1});
    }
    all.push_back({hash, token(9), 255});
  }
  for (int32_t id = 0; id < kVocab; ++id)
    all.push_back({HashTokens(kEmptyContextHash, {&id, 1}), (id * 7 + 1) % kVocab, 255});
  const std::string path = (std::filesystem::temp_directory_path() / "dspark-ngram-bench.gguf").string();
  const NgramConfig config{
      .order = 4, .vocab = kVocab, .target_width = 1, .target_layers = 1, .vocabulary = {}};
  if (!WriteNgramFile(config, all, path)) std::abort();
  auto table = NgramFile::Open(path);
  std::filesystem::remove(path);
  return std::move(table).value();
}

// Fifteen drafts, and a committed token.
void BM_Propose(benchmark::State& state) {
  NgramTable table(MakeTable(int(state.range(0))));
  table.Begin(1, std::vector<int32_t>{1, 2, 3, 4});
  Proposal proposal;
  int32_t next = 5;
  int64_t drafts = 0;
  for (auto _ : state) {
    proposal.Clear();
    ProposeRequest request{.sequence = 1, .max_tokens = 15, .proposal = &proposal};
    table.Propose({&request, 1});
    drafts += proposal.size();
    next = (next * 31 + 7) % kVocab;
    const ObservedRows rows{.sequence = 1, .next = {&next, 1}, .committed = 1};
    table.Observe({&rows, 1});
  }
  state.SetItemsProcessed(drafts);
}
BENCHMARK(BM_Propose)->Arg(50000)->Arg(550000);

}  // namespace
}  // namespace dspark

// Encoding speed, on the tokenizer of a GGUF file: set DSPARK_BENCH_MODEL to its path (default: where `dspark
// pull` keeps the default model) and DSPARK_BENCH_TEXT to a text file (default: the text below, repeated).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "core/mapped_file.h"
#include "load/gguf.h"
#include "load/gguf_tokenizer.h"
#include "load/pre_tokenizer.h"

namespace dspark {
namespace {

constexpr const char* kProse =
    "The river had risen during the night, and by morning the lower meadow was a sheet of brown water with "
    "the "
    "tops of the fence posts showing. \"We'll have to move the sheep,\" said Anna, pulling on her boots; "
    "nobody "
    "answered, because everyone knew it already. In 1953, her grandfather used to say, the flood had reached "
    "the "
    "second step of the porch, and they'd rowed from the kitchen to the barn. She didn't believe half of his "
    "stories, but she believed that one. Outside, the rain kept falling on the roof, patiently, as though it "
    "had "
    "all the time in the world.\n\n";

std::string FromEnvironment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

std::string Text() {
  if (const std::string path = FromEnvironment("DSPARK_BENCH_TEXT", ""); !path.empty()) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string text;
  while (text.size() < (1 << 20)) text += kProse;
  return text;
}

Result<TokenizerSpec> Spec() {
  const std::string path = FromEnvironment(
      "DSPARK_BENCH_MODEL", FromEnvironment("HOME", "") + "/.cache/dspark/SmolLM2-135M-Instruct.Q4_1.gguf");
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  DSPARK_ASSIGN_OR_RETURN(const Gguf gguf, ParseGguf(file.bytes(), path));
  DSPARK_ASSIGN_OR_RETURN(std::optional<TokenizerSpec> spec, TokenizerSpecFromGguf(gguf));
  if (!spec) return MakeError("{}: no tokenizer in this file", path);
  return std::move(*spec);
}

std::unique_ptr<Tokenizer> MakeOrSkip(benchmark::State& state) {
  auto spec = Spec();
  if (spec) {
    if (auto tokenizer = Tokenizer::Make(std::move(spec).value())) return std::move(tokenizer).value();
  }
  state.SkipWithError("no model: set DSPARK_BENCH_MODEL");
  return nullptr;
}

void BM_MakeTokenizer(benchmark::State& state) {
  auto spec = Spec();
  if (!spec) return state.SkipWithError(spec.error().text.c_str());
  for (auto _ : state) {
    state.PauseTiming();
    TokenizerSpec copy = *spec;
    state.ResumeTiming();
    benchmark::DoNotOptimize(Tokenizer::Make(std::move(copy)));
  }
}
BENCHMARK(BM_MakeTokenizer)->Unit(benchmark::kMillisecond);

void EncodeText(benchmark::State& state, const std::string& text) {
  const auto tokenizer = MakeOrSkip(state);
  if (!tokenizer) return;
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Encode(text, true));
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(text.size()));
}

void BM_EncodeProse(benchmark::State& state) { EncodeText(state, Text()); }
BENCHMARK(BM_EncodeProse)->Unit(benchmark::kMillisecond);

// One piece of a million symbols: the heap of merges.
void BM_EncodeOnePiece(benchmark::State& state) { EncodeText(state, std::string(1 << 20, 'a')); }
BENCHMARK(BM_EncodeOnePiece)->Unit(benchmark::kMillisecond);

void BM_Scan(benchmark::State& state) {
  const std::string text = Text();
  const PieceRegex regex(PreTokenizer(state.range(0)));
  for (auto _ : state) {
    PieceScanner scanner(regex);
    for (size_t begin = 0; begin < text.size();) begin += scanner.Next(text, begin);
  }
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(text.size()));
}
BENCHMARK(BM_Scan)
    ->ArgName("kind")
    ->Arg(int(PreTokenizer::kSmolLm))
    ->Arg(int(PreTokenizer::kQwen2))
    ->Unit(benchmark::kMillisecond);

void BM_Decode(benchmark::State& state) {
  const auto tokenizer = MakeOrSkip(state);
  if (!tokenizer) return;
  const std::string text = Text();
  const std::vector<int32_t> ids = tokenizer->Encode(text, true);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Decode(ids, true));
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(text.size()));
}
BENCHMARK(BM_Decode)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dspark

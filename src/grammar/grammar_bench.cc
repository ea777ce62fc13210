// Masks of the default model's vocabulary, of states that are new and of cached ones; compiling schemas. Set
// DSPARK_BENCH_MODEL to a GGUF file (default: where `dspark pull` keeps the default model).
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "grammar/grammar_constraint.h"
#include "grammar/response_constraint.h"
#include "load/model_files.h"

namespace dspark {
namespace {

struct Vocabulary {
  ModelFiles files;
  std::shared_ptr<const TokenTrie> trie;
};

const Vocabulary* OpenVocabulary() {
  const char* path = std::getenv("DSPARK_BENCH_MODEL");
  const char* home = std::getenv("HOME");
  auto files = OpenModel(
      path ? path : std::string(home ? home : "") + "/.cache/dspark/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!files) return nullptr;
  auto* vocabulary = new Vocabulary{std::move(files).value(), nullptr};
  vocabulary->trie = std::make_shared<TokenTrie>(*vocabulary->files.tokenizer, vocabulary->files.config.eos);
  return vocabulary;
}

const Vocabulary* TheVocabulary() {
  static const Vocabulary* vocabulary = OpenVocabulary();
  return vocabulary;
}

ReplyForm FormOf(int kind) {
  ReplyForm form;
  if (kind == 0) form.content = ReplyForm::Content::kJsonObject;
  if (kind == 1) {
    form.content = ReplyForm::Content::kJsonSchema;
    form.schema = nlohmann::ordered_json::parse(
        R"({"type":"object","properties":{"name":{"type":"string","maxLength":200},"kind":{"enum":["river","road"]},
            "when":{"type":"string","format":"date-time"},"size":{"type":"number","minimum":0.5}},
            "required":["name","kind","when","size"],"additionalProperties":false})");
  }
  if (kind == 2) {
    form.tools = {{"weather", "", FormOf(1).schema}};
    form.calls = ReplyForm::Calls::kAuto;
  }
  return form;
}

// Texts to stand behind: of an object, of the schema, of free text.
constexpr const char* kTexts[][4] = {
    {"", "{\"", "{\"a\": [1, {\"b\": \"text", "{\"a\": 12"},
    {"", "{\"name\": \"Po", "{\"name\": \"Po\", \"kind\": \"",
     "{\"name\": \"Po\", \"kind\": \"road\", \"when\": \"20"},
    {"", "Some text", "Some <tool", "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"name\": \"x"}};

std::shared_ptr<const Constraint> Make(int kind) {
  std::string param;
  return std::move(MakeResponseConstraint(FormOf(kind), TheVocabulary()->trie, &param)).value();
}

void PushText(Constraint& constraint, std::string_view text) {
  for (const int32_t token : TheVocabulary()->files.tokenizer->Encode(text, false)) constraint.Push(token);
}

void BM_FreshMask(benchmark::State& state) {
  if (!TheVocabulary()) return state.SkipWithError("no model; run `dspark pull` once");
  const auto made = Make(int(state.range(0)));
  std::vector<float> logits(size_t(TheVocabulary()->trie->vocab()), 1);
  for (auto _ : state) {
    state.PauseTiming();
    const auto constraint = made->Clone();
    PushText(*constraint, kTexts[state.range(0)][state.range(1)]);
    state.ResumeTiming();
    constraint->Mask(logits);
  }
}
BENCHMARK(BM_FreshMask)->ArgsProduct({{0, 1, 2}, {0, 1, 2, 3}})->Unit(benchmark::kMicrosecond);

void BM_CachedMask(benchmark::State& state) {
  if (!TheVocabulary()) return state.SkipWithError("no model; run `dspark pull` once");
  const auto constraint = Make(int(state.range(0)))->Clone();
  PushText(*constraint, kTexts[state.range(0)][1]);
  std::vector<float> logits(size_t(TheVocabulary()->trie->vocab()), 1);
  for (auto _ : state) constraint->Mask(logits);
}
BENCHMARK(BM_CachedMask)->Arg(0)->Arg(1)->Arg(2)->Unit(benchmark::kMicrosecond);

void BM_PushAndPop(benchmark::State& state) {
  if (!TheVocabulary()) return state.SkipWithError("no model; run `dspark pull` once");
  const auto constraint = Make(0)->Clone();
  PushText(*constraint, "{\"a");
  const int32_t token = TheVocabulary()->files.tokenizer->Encode(" word", false)[0];
  for (auto _ : state) {
    constraint->Push(token);
    constraint->Pop();
  }
}
BENCHMARK(BM_PushAndPop);

void BM_Compile(benchmark::State& state) {
  if (!TheVocabulary()) return state.SkipWithError("no model; run `dspark pull` once");
  for (auto _ : state) benchmark::DoNotOptimize(Make(int(state.range(0))));
}
BENCHMARK(BM_Compile)->Arg(0)->Arg(1)->Arg(2)->Unit(benchmark::kMicrosecond);

void BM_Trie(benchmark::State& state) {
  if (!TheVocabulary()) return state.SkipWithError("no model; run `dspark pull` once");
  const ModelFiles& files = TheVocabulary()->files;
  for (auto _ : state) benchmark::DoNotOptimize(TokenTrie(*files.tokenizer, files.config.eos));
}
BENCHMARK(BM_Trie)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dspark

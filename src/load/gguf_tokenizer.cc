#include "load/gguf_tokenizer.h"

#include <string_view>
#include <utility>
#include <vector>

#include "load/printable.h"

namespace dspark {
namespace {

using Strings = std::vector<std::string_view>;

enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

Status SetPreTokenizer(const Gguf& gguf, TokenizerSpec* spec) {
  DSPARK_ASSIGN_OR_RETURN(const std::string_view pre,
                          gguf.GetOr<std::string_view>("tokenizer.ggml.pre", "(missing)"));
  constexpr std::pair<std::string_view, PreTokenizer> kKnown[] = {
      {"smollm", PreTokenizer::kSmolLm}, {"gpt2", PreTokenizer::kGpt2},
      {"gpt-2", PreTokenizer::kGpt2},    {"llama-bpe", PreTokenizer::kLlama3},
      {"llama3", PreTokenizer::kLlama3}, {"llama-v3", PreTokenizer::kLlama3},
      {"qwen2", PreTokenizer::kQwen2}};
  for (const auto& [name, value] : kKnown) {
    if (name != pre) continue;
    spec->pre = value;
    spec->ignore_merges = value == PreTokenizer::kLlama3;
    spec->nfc = value == PreTokenizer::kQwen2;
    return {};
  }
  return MakeError(
      "{}: metadata key tokenizer.ggml.pre is {}; supported are smollm, gpt2, llama-bpe and qwen2; convert "
      "the model again with a current converter",
      gguf.path, Printable(pre));
}

Status AddTokens(const Gguf& gguf, TokenizerSpec* spec) {
  DSPARK_ASSIGN_OR_RETURN(const Strings tokens, gguf.Get<Strings>("tokenizer.ggml.tokens"));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int64_t> types,
                          gguf.Get<std::vector<int64_t>>("tokenizer.ggml.token_type"));
  if (types.size() != tokens.size()) {
    return MakeError(
        "{}: tokenizer.ggml.tokens has {} entries but tokenizer.ggml.token_type {}; the file is damaged",
        gguf.path, tokens.size(), types.size());
  }
  spec->tokens.resize(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] < kNormal || types[id] > kByte) {
      return MakeError("{}: token {} has the unknown type {}; the file is damaged", gguf.path, id, types[id]);
    }
    if (types[id] == kControl || types[id] == kUserDefined) {
      spec->added.push_back({std::string(tokens[id]), int32_t(id), types[id] == kControl});
    } else if (types[id] != kUnused) {
      spec->tokens[id] = tokens[id];
    }
  }
  return {};
}

}  // namespace

Result<std::optional<TokenizerSpec>> TokenizerSpecFromGguf(const Gguf& gguf) {
  DSPARK_ASSIGN_OR_RETURN(const std::string_view model,
                          gguf.GetOr<std::string_view>("tokenizer.ggml.model", "none"));
  if (model == "none" || model == "no_vocab") return std::optional<TokenizerSpec>();
  if (model != "gpt2") {
    return MakeError("{}: metadata key tokenizer.ggml.model is {}; supported is gpt2 (byte-level BPE)",
                     gguf.path, Printable(model));
  }
  TokenizerSpec spec;
  spec.where = gguf.path;
  DSPARK_RETURN_IF_ERROR(SetPreTokenizer(gguf, &spec));
  DSPARK_RETURN_IF_ERROR(AddTokens(gguf, &spec));
  DSPARK_ASSIGN_OR_RETURN(const Strings merges, gguf.Get<Strings>("tokenizer.ggml.merges"));
  spec.merges.assign(merges.begin(), merges.end());
  return std::optional<TokenizerSpec>(std::move(spec));
}

}  // namespace dspark

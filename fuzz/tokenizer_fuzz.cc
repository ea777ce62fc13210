// Any bytes encode without a crash; valid UTF-8 comes back from its ids, all at once and streamed.
#include <cstdint>
#include <cstdlib>

#include "core/check.h"
#include "load/bpe.h"
#include "load/tokenizer.h"
#include "load/utf8.h"

namespace dspark {
namespace {

// Every byte has a token, merges overlap, and added tokens hide in common text.
std::unique_ptr<Tokenizer> MakeTokenizer(PreTokenizer pre, bool ignore_merges) {
  TokenizerSpec spec;
  spec.pre = pre;
  spec.ignore_merges = ignore_merges;
  spec.where = "fuzz";
  for (int b = 0; b < 256; ++b) spec.tokens.push_back(SpellBytes(std::string(1, char(b))));
  for (const char* merge : {"a a", "aa aa", "a b", "b a", "ab a", "Ġ a", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ©", "' '"}) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    spec.tokens.push_back(token);
    spec.merges.push_back(merge);
  }
  for (const char* text : {"<a>", "<a><b>", "<b>", "ab "}) {
    spec.added.push_back({text, int32_t(spec.tokens.size()), text[0] == '<'});
    spec.tokens.emplace_back();
  }
  return std::move(Tokenizer::Make(std::move(spec))).value();
}

void RoundTrip(const Tokenizer& tokenizer, const std::string& text, bool parse_special) {
  const std::vector<int32_t> ids = tokenizer.Encode(text, parse_special);
  const std::string expected = ReplaceInvalidUtf8(text);
  DSPARK_CHECK(tokenizer.Decode(ids, false) == expected);
  Detokenizer detokenizer(tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) streamed += detokenizer.Add(id);
  DSPARK_CHECK(streamed + detokenizer.Finish() == expected);
}

}  // namespace
}  // namespace dspark

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  static const std::unique_ptr<Tokenizer> tokenizers[] = {
      MakeTokenizer(PreTokenizer::kGpt2, false), MakeTokenizer(PreTokenizer::kSmolLm, false),
      MakeTokenizer(PreTokenizer::kLlama3, true), MakeTokenizer(PreTokenizer::kQwen2, false)};
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  RoundTrip(*tokenizers[data[0] % 4], text, data[0] & 4);
  // As token ids, any bytes stream to what they decode to at once.
  const std::vector<int32_t> ids(data, data + size);
  Detokenizer detokenizer(*tokenizers[0]);
  std::string streamed;
  for (const int32_t id : ids) streamed += detokenizer.Add(id);
  DSPARK_CHECK(streamed + detokenizer.Finish() == tokenizers[0]->Decode(ids, true));
  return 0;
}

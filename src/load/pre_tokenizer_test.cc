#include "load/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "load/utf8.h"

namespace dspark {
namespace {

using Pieces = std::vector<std::string>;

Pieces Split(PreTokenizer kind, std::string_view text) {
  const PieceRegex regex(kind);
  PieceScanner scanner(regex);
  Pieces pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = scanner.Next(text, begin);
    pieces.emplace_back(text.substr(begin, length));
    begin += length;
  }
  return pieces;
}

// The matches of a pattern as it was published, one after another.
class Oracle {
 public:
  explicit Oracle(std::string_view pattern) {
    int error;
    size_t where;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                          &error, &where, nullptr);
    match_ = pcre2_match_data_create(1, nullptr);
  }
  ~Oracle() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }
  Pieces Matches(std::string_view text) const {
    Pieces pieces;
    for (size_t begin = 0; begin < text.size();) {
      EXPECT_GT(pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin, 0, match_,
                            nullptr),
                0);
      const size_t* bounds = pcre2_get_ovector_pointer(match_);
      EXPECT_EQ(bounds[0], begin);
      pieces.emplace_back(text.substr(begin, bounds[1] - begin));
      begin = bounds[1];
    }
    return pieces;
  }

 private:
  pcre2_code* code_;
  pcre2_match_data* match_;
};

// Digits first, each by itself; then the published pattern on what stands between them.
Pieces SmolLmPieces(const Oracle& digits_or_text, const Oracle& gpt2, std::string_view text) {
  Pieces pieces;
  for (const std::string& part : digits_or_text.Matches(text)) {
    for (std::string& piece : gpt2.Matches(part)) pieces.push_back(std::move(piece));
  }
  return pieces;
}

std::string RandomText(std::mt19937* random) {
  static const std::u32string common =
      U"    \n\n\r\t'''sStTreveLLmd "
      U"aZé1290.,-_!\u00A0\u0085\u2028\u3000\u200B²Ⅷ中\u0301😀\u017F\u1680\x1C\x0B";
  std::string text;
  for (unsigned i = 0, n = (*random)() % 24; i < n; ++i) {
    const char32_t c = (*random)() % 8 ? common[(*random)() % common.size()] : (*random)() % 0x3400;
    if (c != 0x180E) AppendUtf8(c, &text);  // white space to PCRE2 only
  }
  return text;
}

TEST(PreTokenizerTest, AgreesWithThePublishedPatterns) {
  const Oracle digits(R"(\p{N}|\P{N}+)"), gpt2(PublishedPattern(PreTokenizer::kGpt2)),
      llama3(PublishedPattern(PreTokenizer::kLlama3)), qwen2(PublishedPattern(PreTokenizer::kQwen2));
  std::mt19937 random(11);
  for (int trial = 0; trial < 3000; ++trial) {
    const std::string text = RandomText(&random);
    SCOPED_TRACE(testing::PrintToString(text));
    ASSERT_EQ(Split(PreTokenizer::kSmolLm, text), SmolLmPieces(digits, gpt2, text));
    ASSERT_EQ(Split(PreTokenizer::kGpt2, text), gpt2.Matches(text));
    ASSERT_EQ(Split(PreTokenizer::kLlama3, text), llama3.Matches(text));
    ASSERT_EQ(Split(PreTokenizer::kQwen2, text), qwen2.Matches(text));
  }
}

TEST(PreTokenizerTest, TheFourKindsDiffer) {
  const std::string text = "It'S  1234 +\n\nx";
  EXPECT_EQ(Split(PreTokenizer::kGpt2, text), (Pieces{"It", "'", "S", " ", " 1234", " +", "\n", "\n", "x"}));
  EXPECT_EQ(Split(PreTokenizer::kSmolLm, text),
            (Pieces{"It", "'", "S", "  ", "1", "2", "3", "4", " +", "\n", "\n", "x"}));
  EXPECT_EQ(Split(PreTokenizer::kLlama3, text), (Pieces{"It", "'S", " ", " ", "123", "4", " +\n\n", "x"}));
  EXPECT_EQ(Split(PreTokenizer::kQwen2, text),
            (Pieces{"It", "'S", " ", " ", "1", "2", "3", "4", " +\n\n", "x"}));
}

TEST(PreTokenizerTest, AMongolianVowelSeparatorIsNoSpace) {
  EXPECT_EQ(Split(PreTokenizer::kGpt2, "\u180E\u180E a"), (Pieces{"\u180E\u180E", " a"}));
}

TEST(PreTokenizerTest, LongRunsAreOnePieceAndTakeLittleTime) {
  for (const PreTokenizer kind :
       {PreTokenizer::kGpt2, PreTokenizer::kSmolLm, PreTokenizer::kLlama3, PreTokenizer::kQwen2}) {
    for (const char* unit : {" ", "\t", "'", "x", "é", "\u3000", "😀", "\n"}) {
      std::string text;
      while (text.size() < (2 << 20)) text += unit;
      EXPECT_EQ(Split(kind, text).size(), 1u) << unit;
    }
    std::string mixed;
    while (mixed.size() < (2 << 20)) mixed += " \n\t '";
    EXPECT_GT(Split(kind, mixed).size(), mixed.size() / 5);
  }
}

}  // namespace
}  // namespace dspark

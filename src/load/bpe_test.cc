#include "load/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace dspark {
namespace {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;

Ids Encode(const Bpe& bpe, std::string_view piece) {
  Bpe::Scratch scratch;
  Ids ids;
  bpe.Encode(piece, &scratch, &ids);
  return ids;
}

Bpe MakeBpe(const Strings& tokens, const Strings& merges, bool whole_tokens = false) {
  auto bpe = Bpe::Make(tokens, merges, whole_tokens);
  EXPECT_TRUE(bpe.ok()) << bpe.error().text;
  return std::move(bpe).value();
}

// The definition: merge the leftmost pair of least rank, over and over.
Ids EncodePlainly(const Strings& tokens, const Strings& merges, const std::string& piece) {
  Strings symbols;
  for (const char c : piece) symbols.emplace_back(1, c);
  std::erase_if(symbols,
                [&](const auto& s) { return std::find(tokens.begin(), tokens.end(), s) == tokens.end(); });
  std::map<std::string, size_t> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank[merges[i]] = i;
  while (true) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = rank.find(symbols[i] + " " + symbols[i + 1]);
      if (it != rank.end() && it->second < best) best = it->second, at = i;
    }
    if (best == merges.size()) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + at + 1);
  }
  Ids ids;
  for (const auto& s : symbols)
    ids.push_back(int32_t(std::find(tokens.begin(), tokens.end(), s) - tokens.begin()));
  return ids;
}

// A random vocabulary over "abc" ("d" has no token), with merges in an order that no training would give.
struct Vocabulary {
  Strings tokens{"a", "b", "c"}, merges;
};
Vocabulary RandomVocabulary(std::mt19937* random) {
  Vocabulary v;
  for (int i = 0; i < 30; ++i) {
    const std::string left = v.tokens[(*random)() % v.tokens.size()],
                      right = v.tokens[(*random)() % v.tokens.size()];
    const std::string joined = left + right, merge = left + " " + right;
    if (joined.size() > 8 || std::find(v.merges.begin(), v.merges.end(), merge) != v.merges.end()) continue;
    if (std::find(v.tokens.begin(), v.tokens.end(), joined) == v.tokens.end()) v.tokens.push_back(joined);
    v.merges.push_back(merge);
  }
  std::shuffle(v.merges.begin(), v.merges.end(), *random);
  return v;
}

TEST(BpeTest, ShortAndLongPiecesFollowTheDefinition) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const Vocabulary v = RandomVocabulary(&random);
    const Bpe bpe = MakeBpe(v.tokens, v.merges);
    for (const size_t length : {1, 2, 3, 5, 8, 13, 40, 48, 49, 50, 120}) {
      std::string piece;
      for (size_t i = 0; i < length; ++i) piece += "abcabcabcabcd"[random() % 13];
      ASSERT_EQ(Encode(bpe, piece), EncodePlainly(v.tokens, v.merges, piece)) << piece;
    }
    for (const std::string& token : v.tokens)
      ASSERT_EQ(Encode(bpe, token), EncodePlainly(v.tokens, v.merges, token)) << token;
  }
}

TEST(BpeTest, WholeTokensAreTakenAsTheyAreWhenAsked) {
  const Strings tokens{"a", "b", "abab"};
  EXPECT_EQ(Encode(MakeBpe(tokens, {}), "abab"), (Ids{0, 1, 0, 1}));
  EXPECT_EQ(Encode(MakeBpe(tokens, {}, true), "abab"), Ids{2});
  EXPECT_EQ(Encode(MakeBpe(tokens, {}, true), "ababa"), (Ids{0, 1, 0, 1, 0}));
}

TEST(BpeTest, TheAlphabetSpellsEveryByte) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(char(b));
  std::string back;
  EXPECT_TRUE(AppendSpelledBytes(SpellBytes(bytes), &back));
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(SpellBytes(" the\n"), "ĠtheĊ");
  for (const char* other : {" ", "\n", "\u0144", "\u00AD", "中", "\xC4", "\xC1\xA1", "\x80"}) {
    back = "kept";
    EXPECT_FALSE(AppendSpelledBytes(other, &back)) << other;
    EXPECT_EQ(back, "kept");
  }
}

TEST(BpeTest, TokensOutsideTheAlphabetStandForThemselves) {
  const Bpe bpe = MakeBpe({"a", "<中>", "", "Ġ"}, {}, true);
  EXPECT_EQ(bpe.vocab(), 4);
  EXPECT_EQ(bpe.Bytes(1), "<中>");
  EXPECT_EQ(bpe.Bytes(2), "");
  EXPECT_EQ(bpe.Bytes(3), " ");
  EXPECT_EQ(Encode(bpe, "<中>"), Ids{});
}

TEST(BpeTest, ContradictionsAreErrors) {
  const auto error = [](const Strings& tokens, const Strings& merges) {
    const auto bpe = Bpe::Make(tokens, merges, false);
    return bpe.ok() ? "none" : bpe.error().text;
  };
  EXPECT_EQ(error({"a", "b", "ab"}, {"a b"}), "none");
  EXPECT_EQ(error({"a", "b", "a"}, {}), "token 2 is the same as token 0 (\"a\")");
  for (const char* merge : {"a c", "a", "", " ", "a ", " b", "a b ", "b a", "a  b", "a\nb", "ab"})
    EXPECT_NE(error({"a", "b", "ab"}, {"a b", merge}).find("merge 1"), std::string::npos) << merge;
}

}  // namespace
}  // namespace dspark

#include "load/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "load/bpe.h"

namespace dspark {
namespace {

using Ids = std::vector<int32_t>;

// All 256 bytes (id = byte) and a few merges; added tokens from id 300 on.
TokenizerSpec ByteSpec() {
  TokenizerSpec spec;
  spec.where = "test.json";
  for (int b = 0; b < 256; ++b) spec.tokens.push_back(SpellBytes(std::string(1, char(b))));
  for (const char* merge : {"t h", "th e", "Ġ the", "a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ"}) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    spec.tokens.push_back(token);
    spec.merges.push_back(merge);
  }
  spec.tokens.resize(310);
  return spec;
}

std::unique_ptr<Tokenizer> MakeTokenizer(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Make(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().text;
  return std::move(tokenizer).value();
}

std::string Stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = false) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Add(id);
  return text + detokenizer.Finish();
}

TEST(TokenizerTest, MergesWithinPieces) {
  const auto tokenizer = MakeTokenizer(ByteSpec());
  EXPECT_EQ(tokenizer->Encode("the the", false), (Ids{257, 258}));
  EXPECT_EQ(tokenizer->Encode("", true), Ids{});
  EXPECT_EQ(tokenizer->Encode("\xFF", true), (Ids{0xEF, 0xBF, 0xBD}));
}

TEST(TokenizerTest, OffsetsPointIntoTheTextAsEncoded) {
  using Begins = std::vector<size_t>;
  TokenizerSpec spec = ByteSpec();
  spec.tokens['x'] = "";  // a byte without a token
  spec.nfc = true;
  spec.added = {{"<a>", 300, true}, {"<s>", 301, true, /*strip_left=*/true}};
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EncodedText encoded = tokenizer->EncodeWithOffsets("the<a>xthe  xx<s>e\u0301\xFF", true);
  EXPECT_EQ(encoded.text, "the<a>xthe  xx<s>\u00e9\uFFFD");
  EXPECT_EQ(encoded.ids, (Ids{257, 300, 257, ' ', ' ', 301, 0xC3, 0xA9, 0xEF, 0xBF, 0xBD}));
  EXPECT_EQ(encoded.begins, (Begins{0, 3, 7, 10, 11, 14, 17, 18, 19, 20, 21}));
  encoded = tokenizer->EncodeWithOffsets("a <s> the", true);
  EXPECT_EQ(encoded.ids, (Ids{'a', 301, 258}));
  EXPECT_EQ(encoded.begins, (Begins{0, 1, 5}));
  for (const char* text : {"", "aaaaaaa  the\n\n the", "<a><s>", "x"})
    EXPECT_EQ(tokenizer->EncodeWithOffsets(text, true).ids, tokenizer->Encode(text, true));
}

TEST(TokenizerTest, AddedTokensAreTheLeftmostThenTheLongest) {
  TokenizerSpec spec = ByteSpec();
  spec.added = {{"<a>", 300, true}, {"<a><b>", 301, true}, {"<b>", 302, false}, {"><", 303, true}};
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EXPECT_EQ(tokenizer->Encode("<a><b><a>", true), (Ids{301, 300}));
  EXPECT_EQ(tokenizer->Encode("x<a><a", true), (Ids{'x', 300, '<', 'a'}));
  EXPECT_EQ(tokenizer->Encode(">< <", true), (Ids{303, ' ', '<'}));
  EXPECT_EQ(tokenizer->Encode("<a><b>", false), (Ids{'<', 'a', '>', 302}));
  EXPECT_EQ(tokenizer->FindSpecial("<b>"), 302);
  EXPECT_TRUE(tokenizer->IsSpecial(300));
  EXPECT_FALSE(tokenizer->IsSpecial(302));
  EXPECT_EQ(tokenizer->TokenBytes(301), "<a><b>");
  EXPECT_EQ(tokenizer->Decode({300, 'x', 302, 999, -1}, true), "x<b>");
  EXPECT_EQ(tokenizer->Decode({300, 'x', 302}, false), "<a>x<b>");
}

TEST(TokenizerTest, NormalizedAddedTokensAreFoundAfterNfc) {
  TokenizerSpec spec = ByteSpec();
  spec.nfc = true;
  spec.added = {{"é", 300, false, false, false, false, true}, {"ü", 301, false}};
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EXPECT_EQ(tokenizer->Encode("e\u0301", true), Ids{300});
  EXPECT_EQ(tokenizer->Encode("u\u0308", true), (Ids{0xC3, 0xBC}));
  EXPECT_EQ(tokenizer->Encode("üé", true), (Ids{301, 300}));
}

TEST(TokenizerTest, ContradictionsAreErrorsOfOneLine) {
  const auto error = [](const TokenizerSpec::Added& added) {
    TokenizerSpec spec = ByteSpec();
    spec.added = {added};
    const auto tokenizer = Tokenizer::Make(std::move(spec));
    return tokenizer.ok() ? "none" : tokenizer.error().text;
  };
  EXPECT_EQ(error({"<x>", 300, true}), "none");
  EXPECT_EQ(error({"a", 'a', true}), "none");
  EXPECT_EQ(
      error({"<x>\n", 310, true}),
      "test.json: added token \"<x>\\x0a\" (id 310) is outside the vocabulary; download the file again");
  EXPECT_NE(error({"<x>", -1, true}).find("outside"), std::string::npos);
  EXPECT_NE(error({"", 300, true}).find("no text"), std::string::npos);
  EXPECT_NE(error({"\xFF", 300, true}).find("not UTF-8"), std::string::npos);
  EXPECT_NE(error({"<x>", 7, true}).find("another token"), std::string::npos);
  TokenizerSpec spec = ByteSpec();
  spec.merges.push_back("q q");
  EXPECT_NE(Tokenizer::Make(std::move(spec)).error().text.find("test.json: merge 8"), std::string::npos);
}

TEST(TokenizerTest, StreamingNeverSplitsACharacter) {
  const auto tokenizer = MakeTokenizer(ByteSpec());
  Detokenizer detokenizer(*tokenizer);
  std::vector<std::string> texts;
  for (const char b : std::string("a€😀\xE2\x82z\xF0\x9F")) texts.push_back(detokenizer.Add(uint8_t(b)));
  EXPECT_EQ(texts, (std::vector<std::string>{"a", "", "", "€", "", "", "", "😀", "", "", "\uFFFDz", "", ""}));
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(TokenizerTest, StreamingRandomIdsGivesTheWholeDecode) {
  TokenizerSpec spec = ByteSpec();
  spec.added = {{"<x>", 300, true}, {"é", 301, false}};
  const auto tokenizer = MakeTokenizer(std::move(spec));
  std::mt19937 random(5);
  for (int trial = 0; trial < 3000; ++trial) {
    Ids ids;
    for (unsigned i = 0, n = random() % 30; i < n; ++i)
      ids.push_back(random() % 4 ? 0x80 + random() % 0x80 : random() % 310);
    for (const bool skip : {false, true})
      ASSERT_EQ(Stream(*tokenizer, ids, skip), tokenizer->Decode(ids, skip));
  }
}

TEST(TokenizerTest, HostileTextIsEncodedInLittleTimeAndComesBack) {
  const auto tokenizer = MakeTokenizer(ByteSpec());
  constexpr size_t kBytes = 2 << 20;
  for (const char* unit : {"a", " ", "'", "\n", "the", "é", " '", "1", "\u0301", " \n"}) {
    std::string text;
    while (text.size() < kBytes) text += unit;
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, true), false), text) << unit;
  }
  std::mt19937 random(1);
  std::string noise;
  while (noise.size() < kBytes) noise.push_back(char(random()));
  const std::string decoded = tokenizer->Decode(tokenizer->Encode(noise, true), false);
  EXPECT_EQ(decoded, tokenizer->Decode(tokenizer->Encode(decoded, true), false));
  EXPECT_NE(decoded.find("\uFFFD"), std::string::npos);
}

TEST(TokenizerTest, ThreadsShareATokenizer) {
  const auto tokenizer = MakeTokenizer(ByteSpec());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " the aaaaaaaaaaaaaaa 'tis e\u0301 " + std::to_string(i);
  const Ids expected = tokenizer->Encode(text, true);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = tokenizer->Encode(text, true); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace dspark

#include "engine/sequence.h"

#include <gtest/gtest.h>

#include <random>

namespace dspark {
namespace {

// A tokenizer whose token i is the byte i.
std::unique_ptr<Tokenizer> ByteTokenizer() {
  TokenizerSpec spec;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    spec.tokens.push_back(code < 0x80 ? std::string(1, char(code))
                                      : std::string{char(0xc0 | code >> 6), char(0x80 | (code & 63))});
  }
  auto made = Tokenizer::Make(std::move(spec));
  DSPARK_CHECK(made.ok());
  return std::move(made).value();
}

struct Outcome {
  std::string text;
  bool stopped = false;
  size_t longest_held = 0;
};

Outcome Feed(const Tokenizer& tokenizer, const std::string& bytes, const std::vector<std::string>& stop) {
  ReplyText reply(&tokenizer, stop);
  Outcome outcome;
  size_t fed = 0;
  for (const unsigned char byte : bytes) {
    outcome.text += reply.Add(byte, &outcome.stopped);
    ++fed;
    if (outcome.stopped) return outcome;
    outcome.longest_held = std::max(outcome.longest_held, fed - outcome.text.size());
  }
  outcome.text += reply.Finish();
  return outcome;
}

TEST(ReplyText, StopsBeforeTheStopString) {
  const auto tokenizer = ByteTokenizer();
  EXPECT_EQ(Feed(*tokenizer, "one two three", {"two"}).text, "one ");
  EXPECT_EQ(Feed(*tokenizer, "aaab", {"aab"}).text, "a");
  EXPECT_EQ(Feed(*tokenizer, "abcabd", {"abd"}).text, "abc");
  EXPECT_EQ(Feed(*tokenizer, "no stop here", {"stop!"}).text, "no stop here");
  EXPECT_FALSE(Feed(*tokenizer, "sto", {"stop"}).stopped);
  EXPECT_EQ(Feed(*tokenizer, "sto", {"stop"}).text, "sto");
  EXPECT_EQ(Feed(*tokenizer, "x END y", {"y", "END"}).text, "x ");
}

TEST(ReplyText, RandomTextAgainstAPlainSearch) {
  const auto tokenizer = ByteTokenizer();
  std::mt19937 random(1);
  const auto word = [&](int n) {
    std::string s;
    for (int i = 0; i < n; ++i) s += char('a' + random() % 2);
    return s;
  };
  for (int trial = 0; trial < 2000; ++trial) {
    const std::string text = word(30);
    const std::vector<std::string> stop{word(1 + random() % 6), word(1 + random() % 6)};
    // The stop string that is complete first ends the reply; of two complete at once, the one that starts
    // first.
    size_t end = text.size();
    bool stopped = false;
    for (size_t n = 1; n <= text.size() && !stopped; ++n) {
      for (const auto& s : stop) {
        const size_t at = text.substr(0, n).find(s);
        if (at == std::string::npos) continue;
        end = stopped ? std::min(end, at) : at;
        stopped = true;
      }
    }
    const Outcome outcome = Feed(*tokenizer, text, stop);
    EXPECT_EQ(outcome.stopped, stopped);
    EXPECT_EQ(outcome.text, text.substr(0, end)) << text << " " << stop[0] << " " << stop[1];
    EXPECT_LE(outcome.longest_held, std::max(stop[0].size(), stop[1].size()) - 1);
  }
}

TEST(ReplyText, WithoutATokenizerThereIsNoText) {
  ReplyText reply(nullptr, {});
  bool stopped = true;
  EXPECT_EQ(reply.Add(7, &stopped), "");
  EXPECT_FALSE(stopped);
  EXPECT_EQ(reply.Finish(), "");
}

}  // namespace
}  // namespace dspark

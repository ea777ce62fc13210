#include "data/ngram_counts.h"

#include <gtest/gtest.h>

#include <map>

#include "core/rng.h"
#include "core/token_hash.h"

namespace dspark {
namespace {

constexpr int kVocab = 100;

// Tokens below zero are the prompt's, with their sign turned.
TrainTokens Conversation(const std::vector<int>& text) {
  TrainTokens tokens;
  for (const int token : text) {
    tokens.ids.push_back(std::abs(token));
    tokens.loss_mask.push_back(token >= 0);
  }
  return tokens;
}

uint64_t HashOf(const std::vector<int32_t>& context) {
  uint64_t hash = kEmptyContextHash;
  for (size_t k = context.size(); k-- > 0;) hash = HashTokens(hash, {&context[k], 1});
  return hash;
}

class Counted {
 public:
  Counted(const NgramCorpus& corpus, int order, int64_t most = 1000)
      : table(CountNgrams(corpus, order, kVocab, most)) {
    for (const NgramEntry& entry : table.entries) by_context_[entry.context] = entry;
  }
  // The token behind the context, -1 where it has no entry.
  int32_t After(const std::vector<int32_t>& context) const {
    const auto at = by_context_.find(HashOf(context));
    return at == by_context_.end() ? -1 : at->second.token;
  }
  double Probability(const std::vector<int32_t>& context) const {
    return by_context_.at(HashOf(context)).level / 255.0;
  }
  NgramCounts table;

 private:
  std::map<uint64_t, NgramEntry> by_context_;
};

TEST(CountNgrams, CountsAnswersBehindContextsThatReachIntoThePrompt) {
  NgramCorpus corpus;
  corpus.Add(Conversation({-1, -2, 3, 4}));
  corpus.Add(Conversation({-1, -2, 3, 5}));
  corpus.Add(Conversation({-9, -2, 3, 4}));
  EXPECT_EQ(corpus.conversations(), 3);
  EXPECT_EQ(corpus.answer_tokens(), 6);
  const Counted counted(corpus, 2);
  // Contexts that come twice: [2], [1 2], [3], [2 3]; the others' prompt tokens are followed by none.
  EXPECT_EQ(counted.table.contexts, 4);
  EXPECT_EQ(counted.After({2}), 3);
  EXPECT_EQ(counted.After({3}), 4);
  EXPECT_EQ(counted.After({1}), -1);
  EXPECT_EQ(counted.After({1, 2}), -1) << "it goes on as [2] does";
  EXPECT_EQ(counted.After({4}), -1) << "a conversation's end is no context of the next";
  // Nothing was held out of three conversations: the guess alone, 0.7 of 3 in 3 and of 2 in 3.
  EXPECT_NEAR(counted.Probability({2}), 0.7, 0.003);
  EXPECT_NEAR(counted.Probability({3}), 0.7 * 2 / 3, 0.003);
}

TEST(CountNgrams, ALongerContextIsKeptWhereItSaysSomethingElse) {
  NgramCorpus corpus;
  for (int i = 0; i < 8; ++i) corpus.Add(Conversation({-1, -5, 7}));
  for (int i = 0; i < 6; ++i) corpus.Add(Conversation({-2, -5, 8}));
  const Counted counted(corpus, 3);
  EXPECT_EQ(counted.After({5}), 7);
  EXPECT_EQ(counted.After({2, 5}), 8);
  const double whole = counted.Probability({2, 5});
  EXPECT_GT(whole, 0.7);
  // The mixture of both, 8 of 14, is less sure; [1 5] says the same token, surer: 8 · (p - p')² / 2 of a
  // token.
  EXPECT_LT(counted.Probability({5}), whole);
  EXPECT_EQ(counted.After({1, 5}), 7);
}

TEST(CountNgrams, KeepsTheEntriesThatGainMost) {
  NgramCorpus corpus;
  for (int token = 1; token <= 40; ++token) {
    for (int i = 0; i < 2 + token; ++i) corpus.Add(Conversation({-token, 50 + token}));
  }
  const Counted all(corpus, 2);
  EXPECT_EQ(all.table.entries.size(), 40u);
  for (const int most : {39, 20, 3}) {
    const Counted few(corpus, 2, most);
    EXPECT_LE(few.table.entries.size(), size_t(most));
    EXPECT_GE(few.table.entries.size(), size_t(most) - 1);
    EXPECT_EQ(few.After({40}), 90) << "the most frequent stays";
    EXPECT_EQ(few.After({1}), -1) << "the rarest goes";
  }
  EXPECT_TRUE(Counted(corpus, 2, 0).table.entries.empty());
}

// Of a token that is right in 60 of 100 cases nobody should promise more, however often it was counted.
TEST(CountNgrams, ProbabilitiesHoldForTextThatWasNotCounted) {
  const auto text = [](uint64_t n) {
    std::vector<int> tokens = {-1};
    for (uint64_t i = 0; i < 20; ++i) {
      const float u = UniformFloat(7, n * 20 + i, Purpose::kTest);
      const int context = tokens.back() < 0 ? 0 : tokens.back() % 10;
      // The likeliest successor: 0.6. Others: one of 80.
      tokens.push_back(u < 0.6f ? 10 + context : int(10 + uint64_t(u * 1e6f) % 80));
    }
    return tokens;
  };
  NgramCorpus corpus;
  for (uint64_t n = 0; n < 1000; ++n) corpus.Add(Conversation(text(n)));
  const Counted counted(corpus, 3, 100000);
  double promised = 0, hits = 0, drafts = 0;
  for (uint64_t n = 1000; n < 1500; ++n) {
    const std::vector<int> tokens = text(n);
    for (size_t i = 3; i < tokens.size(); ++i) {
      for (size_t k = 3; k > 0; --k) {
        const std::vector<int32_t> context(tokens.begin() + int64_t(i - k), tokens.begin() + int64_t(i));
        if (counted.After(context) < 0) continue;
        promised += counted.Probability(context);
        hits += counted.After(context) == tokens[i];
        ++drafts;
        break;
      }
    }
  }
  EXPECT_GT(drafts, 8000);
  EXPECT_NEAR(promised / drafts, hits / drafts, 0.02);
  EXPECT_LT(hits / drafts, 0.62);
}

}  // namespace
}  // namespace dspark

#include "grammar/token_trie.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "grammar/grammar_constraint.h"
#include "grammar/json_grammar.h"
#include "grammar_check.h"
#include "load/bpe.h"
#include "load/model_files.h"
#include "test_data.h"

namespace dspark {
namespace {

// All bytes but 0xf5 … 0xff, some words, a repeated text, a control token, an end token and an unused id.
std::unique_ptr<Tokenizer> SmallTokenizer() {
  TokenizerSpec spec;
  spec.where = "test";
  for (int b = 0; b < 0xf5; ++b) spec.tokens.push_back(SpellBytes(std::string(1, char(b))));
  for (const char* text : {"{\"", "\":", "\": ", "\", \"", "true", "tru", "e}", "null", "12", "}\n",
                           "\xc3\xa9", "\xa9x", "\"}", "[[", "]]", "<t"})
    spec.tokens.push_back(SpellBytes(text));
  for (const auto& [text, special] :
       {std::pair("<ctl>", true), {"<end>", true}, {"<t>", false}, {"true", false}}) {
    spec.added.push_back({text, int32_t(spec.tokens.size()), special});
    spec.tokens.emplace_back();
  }
  spec.tokens.emplace_back();
  return std::move(Tokenizer::Make(std::move(spec))).value();
}

std::shared_ptr<const ByteGrammar> JsonValues(const ByteSet& bytes) {
  GrammarBuilder b(bytes);
  JsonGrammar json(b);
  return std::move(b.Finish(json.Value())).value();
}

class TokenTrieTest : public testing::Test {
 protected:
  const std::unique_ptr<Tokenizer> tokenizer_ = SmallTokenizer();
  const int32_t control_ = tokenizer_->FindSpecial("<ctl>"), end_ = tokenizer_->FindSpecial("<end>");
  const std::shared_ptr<const TokenTrie> trie_ =
      std::make_shared<TokenTrie>(*tokenizer_, std::vector<int32_t>{end_, -1, 1 << 20});
};

TEST_F(TokenTrieTest, KnowsTheVocabulary) {
  EXPECT_EQ(trie_->single_bytes().count(), 0xf5u);
  EXPECT_EQ(trie_->ends(), std::vector<int32_t>{end_});
  EXPECT_EQ(trie_->Bytes(control_), "");
  EXPECT_EQ(trie_->Bytes(end_), "");
  EXPECT_EQ(trie_->Bytes(tokenizer_->FindSpecial("<t>")), "<t>");
}

// For the states behind many random beginnings: every token, one by one, against the walk; and a mask of
// logits, new and from the cache, against both.
TEST_F(TokenTrieTest, AllowsWhatTheBytesOfEachTokenAllow) {
  Matcher matcher(JsonValues(trie_->single_bytes()));
  std::mt19937 random(5);
  const int vocab = tokenizer_->vocab();
  for (int i = 0; i < 200; ++i) {
    std::string text = test::RandomText(matcher, random, 80);
    text.resize(random() % (text.size() + 1));
    const auto state = matcher.Step(matcher.start(), text);
    const TokenMask mask = trie_->Allowed(matcher, state);
    GrammarConstraint constraint(JsonValues(trie_->single_bytes()), trie_);
    for (const char c : text) constraint.Push(uint8_t(c));
    std::vector<float> logits(size_t(vocab) + 70, 1), again = logits;
    constraint.Mask(logits);
    constraint.Mask(again);
    EXPECT_EQ(logits, again);
    for (int32_t token = 0; token < vocab; ++token) {
      const std::string_view bytes = trie_->Bytes(token);
      const bool allowed = !bytes.empty() && matcher.Step(state, bytes) != Matcher::kDead;
      ASSERT_EQ(mask[size_t(token) / 64] >> token % 64 & 1, allowed) << text << " then " << bytes;
      const bool may_end = token == end_ && matcher.Whole(state);
      ASSERT_EQ(constraint.Allows(token), allowed || may_end);
      ASSERT_EQ(std::isinf(logits[size_t(token)]), !(allowed || may_end)) << text << " then " << bytes;
    }
    for (size_t token = size_t(vocab); token < logits.size(); ++token) ASSERT_TRUE(std::isinf(logits[token]));
  }
}

TEST_F(TokenTrieTest, ConstraintPushesAndPops) {
  GrammarConstraint constraint(JsonValues(trie_->single_bytes()), trie_);
  const auto push = [&](std::string_view text) {
    for (const char c : text) constraint.Push(uint8_t(c));
  };
  push("[1");
  EXPECT_FALSE(constraint.Complete());
  EXPECT_FALSE(constraint.Allows(end_));
  const auto clone = constraint.Clone();
  push("]");
  EXPECT_TRUE(constraint.Complete());
  EXPECT_TRUE(constraint.Allows(end_));
  EXPECT_FALSE(constraint.Allows(' '));
  constraint.Push(end_);
  EXPECT_TRUE(constraint.Complete());
  EXPECT_FALSE(constraint.Allows(']'));
  constraint.Pop();
  constraint.Pop();
  push("x");  // forbidden: so is all behind it
  EXPECT_FALSE(constraint.Allows(']'));
  EXPECT_FALSE(constraint.Complete());
  push("]");
  EXPECT_FALSE(constraint.Allows(end_));
  constraint.Pop();
  constraint.Pop();
  EXPECT_TRUE(constraint.Allows(']'));
  EXPECT_TRUE(clone->Allows(']'));
  EXPECT_FALSE(clone->Allows(end_));
  EXPECT_FALSE(constraint.Allows(control_));
  constraint.Pop();
  EXPECT_TRUE(constraint.Allows(']'));
}

// Drafts may go on behind the end: rows behind what is allowed there have a distribution.
TEST_F(TokenTrieTest, ConstraintLeavesRowsBehindTheEnd) {
  for (const auto& trie : {trie_, std::make_shared<const TokenTrie>(*tokenizer_, std::vector<int32_t>())}) {
    GrammarConstraint constraint(JsonValues(trie->single_bytes()), trie);
    constraint.Push('{');
    constraint.Push('}');
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(constraint.Complete());
      std::vector<float> logits(size_t(tokenizer_->vocab()), 1);
      constraint.Mask(logits);
      int left = 0;
      for (int32_t token = 0; token < tokenizer_->vocab(); ++token) {
        EXPECT_EQ(std::isfinite(logits[size_t(token)]), constraint.Allows(token));
        left += std::isfinite(logits[size_t(token)]);
      }
      EXPECT_EQ(left, trie->ends().empty() ? tokenizer_->vocab() : 1);
      constraint.Push(end_);
    }
  }
}

// A number may end or go on: whole, not complete.
TEST_F(TokenTrieTest, ConstraintEndsWhereTheTextIsWhole) {
  GrammarConstraint constraint(JsonValues(trie_->single_bytes()), trie_);
  EXPECT_FALSE(constraint.Allows(end_));
  constraint.Push('7');
  EXPECT_TRUE(constraint.Allows(end_));
  EXPECT_TRUE(constraint.Allows('7'));
  EXPECT_FALSE(constraint.Complete());
}

TEST_F(TokenTrieTest, ConstraintSpellsWhatIsForced) {
  GrammarBuilder b(trie_->single_bytes());
  const std::string long_text(1000, 'x');
  const auto root = b.Choice({b.Text("a true story"), b.Text("a truth"), b.Text("b" + long_text)});
  GrammarConstraint constraint(std::move(b.Finish(root)).value(), trie_);
  const int32_t merged = tokenizer_->FindSpecial("true");
  const auto spelled = [&] { return tokenizer_->Decode(constraint.Forced(100), false); };
  EXPECT_EQ(spelled(), "") << "a choice";
  constraint.Push('a');
  EXPECT_EQ(spelled(), " tru");
  for (const char c : std::string_view(" tru")) constraint.Push(uint8_t(c));
  EXPECT_EQ(spelled(), "");
  constraint.Push('e');
  EXPECT_EQ(spelled(), " story");
  EXPECT_EQ(constraint.Forced(3), (std::vector<int32_t>{' ', 's', 't'}));
  EXPECT_TRUE(constraint.Allows(' ')) << "asking changes nothing";
  for (const char c : std::string_view(" story")) constraint.Push(uint8_t(c));
  EXPECT_EQ(spelled(), "") << "the end";
  constraint.Push(end_);
  EXPECT_EQ(spelled(), "");
  for (int i = 0; i < 13; ++i) constraint.Pop();
  constraint.Push('b');
  EXPECT_EQ(spelled(), std::string(100, 'x')) << "as many as are asked for";
  constraint.Pop();
  constraint.Push('a');
  constraint.Push(merged);  // no blank before it
  EXPECT_EQ(spelled(), "") << "nothing follows what is forbidden";
}

// Longer than what is remembered: states are forgotten on the way, and still right.
TEST_F(TokenTrieTest, ConstraintForgetsWithoutHarm) {
  GrammarConstraint constraint(JsonValues(trie_->single_bytes()), trie_);
  std::vector<float> logits(size_t(tokenizer_->vocab()));
  std::mt19937 random(2);
  std::string open;
  for (int i = 0; i < 3000; ++i) {
    open += random() % 2 ? '[' : '{';
    for (const char c : std::string(open.back() == '{' ? "{\"\":" : "[")) constraint.Push(uint8_t(c));
    if (i % 50 == 0) constraint.Mask(logits);
  }
  constraint.Push('1');
  for (; !open.empty(); open.pop_back()) {
    ASSERT_TRUE(constraint.Allows(open.back() == '[' ? ']' : '}'));
    ASSERT_FALSE(constraint.Allows(open.back() == '[' ? '}' : ']'));
    constraint.Push(open.back() == '[' ? ']' : '}');
  }
  EXPECT_TRUE(constraint.Complete());
}

// The default model's vocabulary has what a JSON text needs, emoji included; characters of the planes behind
// have no tokens.
TEST(ModelTokenTrie, HoldsAllCharacters) {
  DSPARK_SKIP_WITHOUT_MODEL();
  const auto model = OpenModel(test::DefaultModelPath());
  ASSERT_TRUE(model.ok());
  const TokenTrie trie(*model->tokenizer, model->config.eos);
  for (int byte = 0x20; byte < 0xf1; ++byte) {
    EXPECT_TRUE(trie.single_bytes()[size_t(byte)] || byte == 0xc0 || byte == 0xc1) << byte;
  }
  EXPECT_TRUE(trie.single_bytes()['\n']);
  Matcher matcher(JsonValues(trie.single_bytes()));
  for (const char* text : {"[\"a", "", "{", "{\"key\": 12"}) {
    const auto state = matcher.Step(matcher.start(), text);
    const TokenMask mask = trie.Allowed(matcher, state);
    for (int32_t token = 0; token < trie.vocab(); ++token) {
      const std::string_view bytes = trie.Bytes(token);
      const bool allowed = !bytes.empty() && matcher.Step(state, bytes) != Matcher::kDead;
      ASSERT_EQ(mask[size_t(token) / 64] >> token % 64 & 1, allowed) << text << " then " << bytes;
    }
  }
}

}  // namespace
}  // namespace dspark

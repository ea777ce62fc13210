#include "grammar/matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "grammar/json_schema.h"
#include "grammar_check.h"

namespace dspark {
namespace {

using test::Accepts;
using test::AllBytes;
using Node = GrammarBuilder::Node;
using Language = std::set<std::string>;

// A node, and all the strings it stands for, by the definition of its kind.
struct Known {
  Node node;
  Language strings;
};

Language Joined(const Language& a, const Language& b) {
  Language joined;
  for (const std::string& x : a) {
    for (const std::string& y : b) joined.insert(x + y);
  }
  return joined;
}

Known RandomNode(GrammarBuilder& b, std::mt19937& random, int depth) {
  if (depth == 0 || random() % 5 == 0) {
    const uint8_t first = uint8_t('a' + random() % 3), last = uint8_t(first + random() % 2);
    Known known{b.Range(first, last), {}};
    for (int c = first; c <= last; ++c) known.strings.insert(std::string(1, char(c)));
    return known;
  }
  std::vector<Node> nodes;
  switch (random() % 3) {
    case 0: {
      Language strings = {""};
      for (size_t n = random() % 3; n > 0; --n) {
        const Known child = RandomNode(b, random, depth - 1);
        nodes.push_back(child.node);
        strings = Joined(strings, child.strings);
      }
      return {b.Sequence(nodes), strings};
    }
    case 1: {
      Language strings;
      for (size_t n = 1 + random() % 3; n > 0; --n) {
        const Known child = RandomNode(b, random, depth - 1);
        nodes.push_back(child.node);
        strings.insert(child.strings.begin(), child.strings.end());
      }
      return {b.Choice(nodes), strings};
    }
    default: {
      const Known child = RandomNode(b, random, depth - 1);
      const int min = int(random() % 2), max = min + int(random() % 2);
      Language strings, rounds = {""};
      for (int n = 0; n <= max; ++n) {
        if (n >= min) strings.insert(rounds.begin(), rounds.end());
        rounds = Joined(rounds, child.strings);
      }
      return {b.Repeat(child.node, min, max), strings};
    }
  }
}

bool BeginsOne(const Language& language, const std::string& text) {
  const auto at = language.lower_bound(text);
  return at != language.end() && at->starts_with(text);
}

void ExpectLanguage(Matcher& matcher, const Language& language) {
  std::vector<std::string> texts = {""};
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string text = texts[i];
    const auto state = matcher.Step(matcher.start(), text);
    ASSERT_EQ(state != Matcher::kDead, BeginsOne(language, text)) << text;
    ASSERT_EQ(matcher.Whole(state), language.contains(text)) << text;
    if (state == Matcher::kDead) continue;
    std::string next;  // bytes that may
    for (char c = 'a'; c <= 'e'; ++c) {
      texts.push_back(text + c);
      if (BeginsOne(language, text + c)) next += c;
    }
    ASSERT_EQ(matcher.Complete(state), next.empty()) << text;
    const bool forced = next.size() == 1 && !language.contains(text);
    ASSERT_EQ(matcher.OnlyByte(state), forced ? std::optional(uint8_t(next[0])) : std::nullopt) << text;
  }
}

TEST(Matcher, AcceptsTheStringsOfFiniteGrammarsAndNoOthers) {
  std::mt19937 random(1);
  int checked = 0;
  for (int i = 0; i < 400; ++i) {
    GrammarBuilder b(AllBytes());
    const Known known = RandomNode(b, random, 4);
    if (known.strings.size() > 3000) continue;
    auto grammar = b.Finish(known.node);
    ASSERT_TRUE(grammar.ok());
    Matcher matcher(*grammar);
    ExpectLanguage(matcher, known.strings);
    ++checked;
  }
  EXPECT_GT(checked, 300);
}

// Brackets: x | ( S S ) | [ ], with a counter beside them.
std::shared_ptr<const ByteGrammar> Brackets() {
  GrammarBuilder b(AllBytes());
  const Node s = b.Declare();
  b.Define(s, b.Choice({b.Text("x"), b.Sequence({b.Text("("), s, s, b.Text(")")}),
                        b.Sequence({b.Text("["), b.Repeat(s, 0), b.Text("]")})}));
  return std::move(b.Finish(b.Sequence({s, b.Repeat(b.Text("!"), 2)}))).value();
}

TEST(Matcher, FollowsRecursion) {
  Matcher matcher(Brackets());
  for (const char* text : {"x!!", "(xx)!!!", "[]!!", "[x(x[])x]!!", "((xx)(x[[]]))!!!!!"})
    EXPECT_TRUE(Accepts(matcher, text));
  for (const char* text : {"", "x", "x!", "(x)!!", "[!!", "xx!!", "[])!!"})
    EXPECT_FALSE(Accepts(matcher, text)) << text;
}

// What alone may follow `text`.
std::string ForcedBehind(Matcher& matcher, std::string_view text) {
  std::string forced;
  auto state = matcher.Step(matcher.start(), text);
  while (const auto byte = matcher.OnlyByte(state)) {
    forced += char(*byte);
    state = matcher.Step(state, *byte);
  }
  return forced;
}

TEST(Matcher, KnowsTheTextThatIsForced) {
  GrammarBuilder b(AllBytes());
  JsonGrammar json(b);
  const auto schema =
      JsonGrammar::Json::parse(R"({"type": "object", "required": ["name", "kind", "open"], "properties": {
      "name": {"type": "string"}, "kind": {"enum": ["river", "rivers", "road"]}, "open": {"const": true}}})");
  Matcher matcher(std::move(b.Finish(CompileSchema(json, schema).value())).value());
  EXPECT_EQ(ForcedBehind(matcher, ""), "{");
  EXPECT_EQ(ForcedBehind(matcher, "{"), "") << "white space, or a name";
  EXPECT_EQ(ForcedBehind(matcher, "{ "), "\"name\":");
  EXPECT_EQ(ForcedBehind(matcher, "{\"na"), "me\":");
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\": "), "\"");
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\":\""), "") << "any text";
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\":\"x\""), ",");
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\":\"x\",\"kind\":\"r"), "");
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\":\"x\",\"kind\":\"ri"), "ver") << "one river or more";
  EXPECT_EQ(ForcedBehind(matcher, "{\"name\":\"x\",\"kind\":\"ro"), "ad\",");
  EXPECT_EQ(ForcedBehind(matcher, R"({"name":"x","kind":"road", "open": t)"), "rue");
  EXPECT_EQ(ForcedBehind(matcher, R"({"name":"x","kind":"road", "open":true })"), "") << "the end";
  EXPECT_EQ(ForcedBehind(matcher, "x"), "") << "nothing begins so";
}

TEST(Matcher, RemembersOnlyWhatItIsTold) {
  Matcher matcher(Brackets()), fresh(Brackets());
  std::mt19937 random(3);
  std::vector<std::string> texts = {"[(x", "[[[(xx)", "x!", "x!!"};
  for (int i = 0; i < 300; ++i) test::RandomText(matcher, random, 60);
  std::vector<Matcher::State> states = {Matcher::kDead};
  for (const std::string& text : texts) states.push_back(matcher.Step(matcher.start(), text));
  const size_t before = matcher.size();
  matcher.Keep(&states);
  EXPECT_LT(matcher.size(), before / 4);
  EXPECT_EQ(states[0], Matcher::kDead);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (const char* rest : {"", "!", "x)]!!", "]]]!!", ")]!!", "x"}) {
      const auto state = matcher.Step(states[i + 1], rest);
      const auto expected = fresh.Step(fresh.start(), texts[i] + rest);
      EXPECT_EQ(state == Matcher::kDead, expected == Matcher::kDead) << texts[i] << rest;
      EXPECT_EQ(matcher.Whole(state), fresh.Whole(expected)) << texts[i] << rest;
    }
  }
}

// Readings beyond the limit are dropped; what is left is sound, and some of it always goes on.
TEST(Matcher, LimitsAmbiguity) {
  GrammarBuilder b(AllBytes());
  const Node s = b.Declare();
  std::vector<Node> ways;
  for (int i = 1; i <= 6; ++i)
    ways.push_back(b.Sequence({b.Text("("), s, b.Repeat(b.Text("."), 0, i), b.Text(")")}));
  ways.push_back(b.Text("x"));
  b.Define(s, b.Choice(ways));
  Matcher matcher(std::move(b.Finish(s)).value());
  EXPECT_TRUE(Accepts(matcher, std::string(30, '(') + "x" + std::string(30, ')')));
  EXPECT_FALSE(Accepts(matcher, std::string(30, '(') + "x" + std::string(29, ')')));
  EXPECT_LT(matcher.size(), size_t(60 * 20 * Matcher::kMaxReadings));
}

TEST(GrammarBuilder, RefusesWhatCannotBeMatched) {
  const auto error_of = [](auto make) {
    GrammarBuilder b(AllBytes().reset('q'));
    const auto grammar = b.Finish(make(b));
    return grammar.ok() ? std::string() : grammar.error().text;
  };
  EXPECT_THAT(error_of([](GrammarBuilder& b) { return b.Never(); }), testing::HasSubstr("allows no text"));
  EXPECT_THAT(error_of([](GrammarBuilder& b) { return b.Text("q"); }), testing::HasSubstr("allows no text"));
  EXPECT_EQ(error_of([](GrammarBuilder& b) { return b.Choice({b.Text("aq"), b.Text("a")}); }), "");
  const auto itself = [](GrammarBuilder& b) {
    const Node s = b.Declare();
    b.Define(s, b.Sequence({b.Text("a"), s}));
    return s;
  };
  EXPECT_THAT(error_of(itself), testing::HasSubstr("need themselves"));
  const auto left = [](GrammarBuilder& b) {
    const Node s = b.Declare();
    b.Define(s, b.Choice({b.Text("a"), b.Sequence({b.Optional(b.Text("b")), s, b.Text("c")})}));
    return s;
  };
  EXPECT_THAT(error_of(left), testing::HasSubstr("begins with itself"));
  const auto large = [](GrammarBuilder& b) {
    std::vector<Node> nodes;
    for (size_t i = 0; i < GrammarBuilder::kMaxSize; ++i)
      nodes.push_back(b.Repeat(b.Text("a"), 0, int32_t(i + 2)));
    return b.Choice(nodes);
  };
  EXPECT_THAT(error_of(large), testing::HasSubstr("too large"));
}

TEST(GrammarBuilder, TextsAreOneReadingWhileTheyShareBytes) {
  std::vector<std::string> texts;
  for (int i = 0; i < 3000; ++i) texts.push_back(std::to_string(i * 7));
  GrammarBuilder b(AllBytes());
  Matcher matcher(std::move(b.Finish(b.Texts(texts))).value());
  const std::set<std::string> known(texts.begin(), texts.end());
  for (int i = 0; i < 21100; ++i)
    EXPECT_EQ(Accepts(matcher, std::to_string(i)), known.contains(std::to_string(i)));
}

}  // namespace
}  // namespace dspark

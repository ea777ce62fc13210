#include "grammar/response_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar_check.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Calls = ReplyForm::Calls;
using Content = ReplyForm::Content;

ToolFunction Weather() {
  return {"weather", "Tells the weather.",
          Json::parse(R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"]})")};
}
ToolFunction Clock() { return {"clock", "", nullptr}; }

constexpr const char* kWeather =
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
constexpr const char* kClock = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>";

Matcher MatcherOf(const ReplyForm& form) {
  std::string param;
  auto grammar = MakeReplyGrammar(form, test::AllBytes(), &param);
  if (!grammar) CheckFailed(__FILE__, __LINE__, grammar.error().text);
  return Matcher(*grammar);
}

TEST(ReplyForm, IsFreeUnlessItSaysOtherwise) {
  std::string param;
  EXPECT_EQ(*MakeReplyGrammar({}, test::AllBytes(), &param), nullptr);
}

TEST(ReplyForm, CanBeAnyObject) {
  Matcher matcher = MatcherOf({.content = Content::kJsonObject});
  for (const char* text : {"{}", "{\"a\": [1, {\"b\": null}]}", "{\n  \"a\": \"x\"\n}"}) {
    EXPECT_TRUE(test::Accepts(matcher, text)) << text;
    EXPECT_TRUE(matcher.Complete(matcher.Step(matcher.start(), text)));
  }
  for (const char* text : {"[]", "1", " {}", "{} ", "{\"a\"}", "{\"a\":1,}"})
    EXPECT_FALSE(test::Accepts(matcher, text)) << text;
}

TEST(ReplyForm, CanBeCallsAlone) {
  ReplyForm form{.tools = {Weather(), Clock()}, .calls = Calls::kRequired};
  Matcher several = MatcherOf(form);
  const std::string weather = kWeather, clock = kClock;
  for (const std::string& text : {weather, clock, weather + "\n" + clock + "\n" + weather})
    EXPECT_TRUE(test::Accepts(several, text)) << text;
  for (const std::string& text : {std::string("Hi"), "Hi" + weather, weather + clock, weather + "\n",
                                  std::string("<tool_call>\n{\"name\": \"x\"")})
    EXPECT_FALSE(test::Accepts(several, text)) << text;
  EXPECT_EQ(several.Step(several.start(), "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}"),
            Matcher::kDead);
  form.parallel_calls = false;
  Matcher one = MatcherOf(form);
  EXPECT_TRUE(one.Complete(one.Step(one.start(), weather)));
  form.parallel_calls = true;
  form.function = "clock";
  Matcher named = MatcherOf(form);
  EXPECT_TRUE(named.Complete(named.Step(named.start(), clock)));
  EXPECT_FALSE(test::Accepts(named, weather));
}

TEST(ReplyForm, CanBeTextAndThenCalls) {
  Matcher matcher = MatcherOf({.tools = {Weather()}, .calls = Calls::kAuto});
  const std::string weather = kWeather;
  for (const std::string& text :
       {std::string(), std::string("Hello, é <b> <tool_c"), std::string("<<tool_cal<tool>"), weather,
        "I look.\n" + weather + "\n" + weather, "<tool_call" + weather, "<tool_cal<" + weather})
    EXPECT_TRUE(test::Accepts(matcher, text)) << text;
  for (const std::string& text : {std::string("a<tool_call>"), "x" + weather + " y",
                                  std::string("<tool_call>\n{\"name\": \"weather\"}"), std::string("\xff")})
    EXPECT_FALSE(test::Accepts(matcher, text)) << text;
  EXPECT_EQ(matcher.Step(matcher.start(), "<tool_call>x"), Matcher::kDead);
}

TEST(ReplyForm, CanBeAnObjectOrCalls) {
  Matcher matcher = MatcherOf(
      {.content = Content::kJsonSchema, .schema = {{"const", 1}}, .tools = {Clock()}, .calls = Calls::kAuto});
  EXPECT_TRUE(test::Accepts(matcher, "1"));
  EXPECT_TRUE(test::Accepts(matcher, kClock));
  EXPECT_FALSE(test::Accepts(matcher, "Hi"));
}

TEST(ReplyForm, NamesTheFieldThatIsWrong) {
  const auto expect = [](const ReplyForm& form, const char* field, const char* text) {
    std::string param;
    const auto grammar = MakeReplyGrammar(form, test::AllBytes(), &param);
    ASSERT_FALSE(grammar.ok());
    EXPECT_EQ(param, field);
    EXPECT_THAT(grammar.error().text, testing::HasSubstr(text));
  };
  expect({.content = Content::kJsonSchema, .schema = {{"not", true}}}, "response_format.json_schema.schema",
         "#: the keyword \"not\"");
  expect({.content = Content::kJsonSchema, .schema = false}, "response_format.json_schema.schema",
         "the schema allows no text");
  ToolFunction wrong = Weather();
  wrong.parameters["properties"]["city"]["pattern"] = "(";
  expect({.tools = {Clock(), wrong}, .calls = Calls::kAuto}, "tools[1].function.parameters",
         "#/properties/city: pattern");
  expect({.tools = {Clock()}, .calls = Calls::kRequired, .function = "other"}, "tool_choice",
         "no tool has the name \"other\"");
  expect({.tools = std::vector<ToolFunction>(129, Clock()), .calls = Calls::kAuto}, "tools", "at most 128");
}

// The layout of Qwen3's template, for one tool.
TEST(ToolText, IsThatOfTheQwenTemplates) {
  const ToolFunction tool{"f", "d", Json::parse(R"({"type":"object","properties":{"a":{"type":"string"}}})")};
  EXPECT_EQ(ToolPreamble({&tool, 1}),
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
            "provided with function signatures within "
            "<tools></tools> XML tags:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"f\", "
            "\"description\": \"d\", \"parameters\": "
            "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}}}}\n</tools>\n\nFor each "
            "function call, return a json object with "
            "function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": "
            "<function-name>, \"arguments\": "
            "<args-json-object>}\n</tool_call>");
  std::string content = "text";
  AppendCall({"weather", R"({"city":"Rome"})"}, &content);
  AppendCall({"clock", "{}"}, &content);
  EXPECT_EQ(content, std::string("text\n") + kWeather + "\n" + kClock);
  std::string results;
  AppendToolResult("5", &results);
  AppendToolResult("6", &results);
  EXPECT_EQ(results, "<tool_response>\n5\n</tool_response>\n<tool_response>\n6\n</tool_response>");
}

struct Parsed {
  std::string content;
  std::vector<std::string> calls;
};

Parsed ParseIn(std::string_view text, size_t step) {
  ToolCallParser parser;
  Parsed parsed;
  const auto add = [&](const ToolCallParser::Piece& piece) {
    parsed.content += piece.content;
    for (const ParsedCall& call : piece.calls) parsed.calls.push_back(call.name + call.arguments);
  };
  for (size_t i = 0; i < text.size(); i += step) add(parser.Add(text.substr(i, step)));
  add(parser.Finish());
  return parsed;
}

TEST(ToolCallParser, TakesRepliesApartHoweverTheyCome) {
  const std::string weather = kWeather, clock = kClock,
                    tricky =
                        "<tool_call>{\"name\": \"t\", \"arguments\": {\"x\": \"</tool_call>\"}}</tool_call>";
  const struct {
    std::string text, content;
    std::vector<std::string> calls;
  } cases[] = {
      {"Hello <b>\n", "Hello <b>\n", {}},
      {weather, "", {"weather{\"city\": \"Rome\"}"}},
      {"Let me see.\n\n" + weather + "\n" + clock + "\n",
       "Let me see.",
       {"weather{\"city\": \"Rome\"}", "clock{}"}},
      {clock + "  and more", "and more", {"clock{}"}},
      {"<tool_c \n" + clock, "<tool_c", {"clock{}"}},
      {"a < b <tool", "a < b <tool", {}},
      {"a <tool_call>\n{\"name\": \"cut", "a <tool_call>\n{\"name\": \"cut", {}},
      {tricky, "", {"t{\"x\": \"</tool_call>\"}"}},
      {"<tool_call>no json</tool_call>", "<tool_call>no json</tool_call>", {}},
      {"<tool_call>{\"name\": 1}</tool_call>", "<tool_call>{\"name\": 1}</tool_call>", {}},
  };
  for (const auto& c : cases) {
    for (const size_t step : {size_t(1), size_t(3), size_t(7), c.text.size()}) {
      const Parsed parsed = ParseIn(c.text, step);
      EXPECT_EQ(parsed.content, c.content) << c.text << " by " << step;
      EXPECT_EQ(parsed.calls, c.calls) << c.text << " by " << step;
    }
  }
}

}  // namespace
}  // namespace dspark

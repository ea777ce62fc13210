#include "serve/reply_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/openai_reply.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"string"}},"required":["z","a"]}}}])";

ApiRequest Parse(const std::string& fields) {
  ApiRequest request;
  const auto error = ParseRequest(
      Endpoint::kChat, R"({"messages":[{"role":"user","content":"Hi"}],)" + fields + "}", &request);
  EXPECT_FALSE(error) << error->message;
  return request;
}

TEST(RequestForm, OffersToolsInASystemMessage) {
  ApiRequest request = Parse(kTools);
  EXPECT_TRUE(OffersTools(request));
  const auto offered = PlainMessages(request);
  ASSERT_EQ(offered.size(), 2u);
  EXPECT_EQ(offered[0].role, "system");
  EXPECT_THAT(offered[0].content, testing::StartsWith("# Tools\n"));
  EXPECT_THAT(offered[0].content, testing::HasSubstr(R"("properties": {"z": {"type": "integer"}, "a":)"));
  request.messages.insert(request.messages.begin(), {.role = "system", .content = "Be brief."});
  EXPECT_THAT(PlainMessages(request)[0].content, testing::StartsWith("Be brief.\n\n# Tools\n"));
  request.tool_choice = ToolChoice{.kind = ToolChoice::Kind::kNone};
  EXPECT_FALSE(OffersTools(request));
  EXPECT_EQ(PlainMessages(request)[0].content, "Be brief.");
}

TEST(RequestForm, RendersCallsAndTheirResults) {
  ApiRequest request;
  request.messages = {
      {.role = "user", .content = "a"},
      {.role = "assistant", .content = "", .tool_calls = {{"1", "f", R"({"x":1})"}, {"2", "g", "{}"}}},
      {.role = "tool", .content = "5"},
      {.role = "tool", .content = "6"},
      {.role = "user", .content = "b"}};
  const auto plain = PlainMessages(request);
  ASSERT_EQ(plain.size(), 4u);
  EXPECT_EQ(plain[1].content,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": "
            "1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", "
            "\"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(plain[2].role, "user");
  EXPECT_EQ(plain[2].content, "<tool_response>\n5\n</tool_response>\n<tool_response>\n6\n</tool_response>");
  EXPECT_EQ(plain[3].content, "b");
}

TEST(RequestForm, KeepsTheOrderOfASchema) {
  const ApiRequest request = Parse(
      R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"z":{},"a":{}}}}})");
  EXPECT_EQ(request.response_format.schema, R"({"type":"object","properties":{"z":{},"a":{}}})");
}

TEST(RequestForm, NeedsATokenizerOnlyWhereThereIsOne) {
  ApiRequest plain = Parse(R"("temperature":0)"),
             object = Parse(R"("response_format":{"type":"json_object"})");
  EXPECT_FALSE(ConstrainReplies(nullptr, &plain));
  const auto error = ConstrainReplies(nullptr, &object);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->param, "response_format");
}

// Chunks of a reply put together again.
Json Joined(const std::string& events) {
  Json message{{"content", ""}, {"tool_calls", Json::array()}};
  std::istringstream lines(events);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: {")) continue;
    const Json choice = Json::parse(line.substr(6))["choices"][0];
    if (choice["delta"].contains("content"))
      message["content"] =
          message["content"].get<std::string>() + choice["delta"]["content"].get<std::string>();
    if (choice["delta"].contains("tool_calls"))
      message["tool_calls"].push_back(choice["delta"]["tool_calls"][0]);
    if (!choice["finish_reason"].is_null()) message["finish_reason"] = choice["finish_reason"];
  }
  return message;
}

TEST(ReplyWithTools, TellsCallsFromText) {
  const ReplyHeader header{.id = "chatcmpl-1", .model = "m", .tool_calls = true};
  const std::string text =
      "So:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"z\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": "
      "\"f\", \"arguments\": {}}\n</tool_call>";
  ReplyChoice choice;
  ReplyChunks chunks(header);
  std::string events;
  for (size_t i = 0; i < text.size(); i += 5) {
    TokenEvent event{.token = 1, .text = text.substr(i, 5)};
    if (i + 5 >= text.size())
      event.finish = FinishReason::kStop, event.stats = std::make_shared<SequenceStats>();
    chunks.Token(0, event, &events);
    if (event.finish != FinishReason::kNone) chunks.Finish(0, event, &events);
    choice.Add(event, false);
  }
  const Json whole = Json::parse(ReplyBody(header, {&choice, 1}))["choices"][0];
  EXPECT_EQ(whole["finish_reason"], "tool_calls");
  EXPECT_EQ(whole["message"]["content"], "So:");
  ASSERT_EQ(whole["message"]["tool_calls"].size(), 2u);
  EXPECT_EQ(whole["message"]["tool_calls"][0]["function"],
            Json({{"name", "f"}, {"arguments", R"({"z": 1})"}}));
  const Json streamed = Joined(events);
  EXPECT_EQ(streamed["content"], "So:");
  EXPECT_EQ(streamed["finish_reason"], "tool_calls");
  ASSERT_EQ(streamed["tool_calls"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    Json call = streamed["tool_calls"][i];
    EXPECT_EQ(call["index"], i);
    call.erase("index");
    EXPECT_EQ(call, whole["message"]["tool_calls"][i]);
  }
}

// What was cut off is text, to the last byte.
TEST(ReplyWithTools, LeavesHalfACallAsText) {
  const ReplyHeader header{.id = "chatcmpl-1", .model = "m", .tool_calls = true};
  const TokenEvent event{.token = 1,
                         .text = "x <tool_call>\n{\"na",
                         .finish = FinishReason::kLength,
                         .stats = std::make_shared<SequenceStats>()};
  ReplyChoice choice;
  choice.Add(event, false);
  std::string events;
  ReplyChunks chunks(header);
  chunks.Token(0, event, &events);
  chunks.Finish(0, event, &events);
  const Json whole = Json::parse(ReplyBody(header, {&choice, 1}))["choices"][0];
  EXPECT_EQ(whole["message"]["content"], event.text);
  EXPECT_FALSE(whole["message"].contains("tool_calls"));
  EXPECT_EQ(Joined(events)["content"], event.text);
  EXPECT_EQ(Joined(events)["finish_reason"], "length");
}

}  // namespace
}  // namespace dspark

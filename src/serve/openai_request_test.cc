#include "serve/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dspark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr char kHello[] = R"("messages":[{"role":"user","content":"hello"}])";

ApiRequest Chat(const std::string& fields) {
  ApiRequest request;
  const auto error = ParseRequest(
      Endpoint::kChat, std::string("{") + kHello + (fields.empty() ? "" : ",") + fields + "}", &request);
  EXPECT_FALSE(error) << error->message;
  return request;
}

ApiRequest Completion(const std::string& fields) {
  ApiRequest request;
  const auto error = ParseRequest(Endpoint::kCompletions, "{" + fields + "}", &request);
  EXPECT_FALSE(error) << error->message;
  return request;
}

TEST(OpenAiRequest, HasOpenAisDefaults) {
  const ApiRequest r = Chat("");
  ASSERT_EQ(r.messages.size(), 1u);
  EXPECT_EQ(r.messages[0].role, "user");
  EXPECT_EQ(r.messages[0].content, "hello");
  EXPECT_EQ(r.settings.sampling.temperature, 1);
  EXPECT_EQ(r.settings.sampling.top_p, 1);
  EXPECT_EQ(r.settings.top_logprobs, -1);
  EXPECT_TRUE(r.settings.speculate);
  EXPECT_EQ(r.n, 1);
  EXPECT_FALSE(r.stream || r.include_usage || r.seed || r.max_tokens || r.tool_choice);
  EXPECT_EQ(Completion(R"("prompt":"x")").max_tokens, 16);
}

TEST(OpenAiRequest, ReadsEveryField) {
  const ApiRequest r = Chat(
      R"("model":"m","user":"u","temperature":0.5,"top_p":0.9,"n":3,"stop":["a","b"],"seed":-1,"logprobs":true,
         "top_logprobs":4,"presence_penalty":-1,"frequency_penalty":2,"logit_bias":{"7":-100,"9":1.5},"stream":true,
         "stream_options":{"include_usage":true},"max_completion_tokens":5.0,"top_k":40,"min_p":0.1,
         "repetition_penalty":1.1,"ignore_eos":true,"speculate":false,"metadata":{"of":"others"},"store":null)");
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(r.user, "u");
  EXPECT_FLOAT_EQ(r.settings.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(r.settings.sampling.top_p, 0.9f);
  EXPECT_FLOAT_EQ(r.settings.sampling.min_p, 0.1f);
  EXPECT_FLOAT_EQ(r.settings.sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(r.settings.sampling.top_k, 40);
  EXPECT_EQ(r.settings.sampling.presence_penalty, -1);
  EXPECT_EQ(r.settings.sampling.frequency_penalty, 2);
  EXPECT_THAT(r.settings.sampling.logit_bias, ElementsAre(Pair(7, -100), Pair(9, 1.5f)));
  EXPECT_THAT(r.settings.stop, ElementsAre("a", "b"));
  EXPECT_EQ(r.settings.top_logprobs, 4);
  EXPECT_TRUE(r.settings.ignore_eos);
  EXPECT_FALSE(r.settings.speculate);
  EXPECT_EQ(r.n, 3);
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(r.seed, ~uint64_t{0});
  EXPECT_TRUE(r.stream && r.include_usage);
}

TEST(OpenAiRequest, ReadsEveryFormOfMessagesAndPrompts) {
  ApiRequest r;
  ASSERT_FALSE(ParseRequest(Endpoint::kChat, R"({"messages":[{"role":"developer","content":"s"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c","content":"4"}]})",
                            &r));
  ASSERT_EQ(r.messages.size(), 4u);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_EQ(r.messages[1].content, "ab");
  ASSERT_EQ(r.messages[2].tool_calls.size(), 1u);
  EXPECT_EQ(r.messages[2].tool_calls[0].name, "f");
  EXPECT_EQ(r.messages[3].tool_call_id, "c");

  using Ids = std::vector<int32_t>;
  EXPECT_THAT(Completion(R"("prompt":"x")").prompts, ElementsAre(PromptInput("x")));
  EXPECT_THAT(Completion(R"("prompt":["x","y"])").prompts, ElementsAre(PromptInput("x"), PromptInput("y")));
  EXPECT_THAT(Completion(R"("prompt":[1,2])").prompts, ElementsAre(PromptInput(Ids{1, 2})));
  EXPECT_THAT(Completion(R"("prompt":[[1],[2,3]],"logprobs":0)").prompts,
              ElementsAre(PromptInput(Ids{1}), PromptInput(Ids{2, 3})));
  EXPECT_EQ(Completion(R"("prompt":"x","logprobs":2)").settings.top_logprobs, 2);
}

TEST(OpenAiRequest, TakesFormatsAndToolsApart) {
  const ApiRequest r = Chat(
      R"("response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}},
         "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],
         "tool_choice":{"type":"function","function":{"name":"f"}})");
  EXPECT_EQ(r.response_format.kind, ResponseFormat::Kind::kJsonSchema);
  EXPECT_EQ(r.response_format.schema, R"({"type":"object"})");
  EXPECT_TRUE(r.response_format.strict);
  ASSERT_EQ(r.tools.size(), 1u);
  EXPECT_EQ(r.tools[0].parameters, R"({"type":"object"})");
  EXPECT_EQ(r.tool_choice->name, "f");
  EXPECT_EQ(Chat(R"("tool_choice":"required")").tool_choice->kind, ToolChoice::Kind::kRequired);
}

TEST(OpenAiRequest, TakesLlamaCppsFormOfASchema) {
  for (const std::string type : {"json_object", "json_schema"}) {
    const ApiRequest r =
        Chat(R"("response_format":{"schema":{"type":"object","b":1,"a":2},"type":")" + type + "\"}");
    EXPECT_EQ(r.response_format.kind, ResponseFormat::Kind::kJsonSchema) << type;
    EXPECT_EQ(r.response_format.schema, R"({"type":"object","b":1,"a":2})") << type;
  }
  EXPECT_EQ(Chat(R"("response_format":{"type":"json_object"})").response_format.kind,
            ResponseFormat::Kind::kJsonObject);
}

struct Bad {
  Endpoint endpoint;
  std::string body, param, message;
};

class OpenAiRequestErrors : public testing::TestWithParam<Bad> {};

TEST_P(OpenAiRequestErrors, SayWhatAndWhere) {
  ApiRequest request;
  const auto error = ParseRequest(GetParam().endpoint, GetParam().body, &request);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->param, GetParam().param);
  EXPECT_THAT(error->message, HasSubstr(GetParam().message));
}

Bad ChatWith(const std::string& field, const std::string& param, const std::string& message) {
  return {Endpoint::kChat, std::string("{") + kHello + "," + field + "}", param, message};
}
Bad Prompt(const std::string& fields, const std::string& param, const std::string& message) {
  return {Endpoint::kCompletions, "{" + fields + "}", param, message};
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, OpenAiRequestErrors,
    testing::Values(
        Bad{Endpoint::kChat, "", "", "no JSON"}, Bad{Endpoint::kChat, "{\"a\":\"\xff\"}", "", "no JSON"},
        Bad{Endpoint::kChat, "7", "", "number"}, Bad{Endpoint::kChat, "{}", "messages", "missing"},
        Bad{Endpoint::kChat, R"({"messages":[]})", "messages", "at least one"},
        Bad{Endpoint::kChat, R"({"messages":["x"]})", "messages[0]", "no object"},
        Bad{Endpoint::kChat, R"({"messages":[{"role":"user","content":"a"},{"role":"user"}]})",
            "messages[1].content", "missing"},
        Bad{Endpoint::kChat, R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
            "messages[0].content[0].type", "image_url"},
        ChatWith(R"("temperature":"hot")", "temperature", "must be a number"),
        ChatWith(R"("temperature":-1)", "temperature", "from 0 to 100"),
        ChatWith(R"("top_p":1e400)", "", "out of range"), ChatWith(R"("top_p":2)", "top_p", "from 0 to 1"),
        ChatWith(R"("n":0)", "n", "from 1 to 128"), ChatWith(R"("n":1.5)", "n", "whole number"),
        ChatWith(R"("n":18446744073709551615)", "n", "whole number"),
        ChatWith(R"("max_tokens":0)", "max_tokens", "from 1"),
        ChatWith(R"("stream":1)", "stream", "true or false"),
        ChatWith(R"("stream_options":{})", "stream_options", "stream is not"),
        ChatWith(R"("top_logprobs":2)", "top_logprobs", "logprobs"),
        ChatWith(R"("logprobs":true,"top_logprobs":21)", "top_logprobs", "to 20"),
        ChatWith(R"("stop":["a",3])", "stop", "string"), ChatWith(R"("stop":"")", "stop", "not empty"),
        ChatWith(R"("logit_bias":{"x":1})", "logit_bias", "token ids"),
        ChatWith(R"("logit_bias":{"1":101})", "logit_bias", "100"),
        ChatWith(R"("seed":"s")", "seed", "whole"),
        ChatWith(R"("response_format":{"type":"xml"})", "response_format.type", "json_schema"),
        ChatWith(R"("response_format":{"type":"json_schema"})", "response_format.json_schema", "missing"),
        ChatWith(R"("tools":[{"type":"function"}])", "tools[0].function", "missing"),
        ChatWith(R"("tool_choice":"maybe")", "tool_choice", "none, auto"),
        Prompt(R"("n":1)", "prompt", "missing"), Prompt(R"("prompt":[])", "prompt", "must be"),
        Prompt(R"("prompt":[1,"x"])", "prompt", "must be"), Prompt(R"("prompt":[-1])", "prompt", "must be"),
        Prompt(R"("prompt":"x","logprobs":true)", "logprobs", "whole number"),
        Prompt(R"("prompt":"x","echo":true)", "echo", "not supported"),
        Prompt(R"("prompt":"x","suffix":"y")", "suffix", "not supported"),
        Prompt(R"("prompt":"x","best_of":2)", "best_of", "use n")));

TEST(OpenAiRequest, SurvivesDeepNesting) {
  ApiRequest request;
  const std::string deep = "{\"messages\":" + std::string(1 << 20, '[');
  EXPECT_TRUE(ParseRequest(Endpoint::kChat, deep, &request));
  EXPECT_TRUE(ParseRequest(Endpoint::kChat, deep + std::string(1 << 20, ']') + "}", &request));
}

TEST(OpenAiRequest, ReadsTokenizeBodies) {
  std::string content;
  std::vector<int32_t> tokens;
  EXPECT_FALSE(ParseTokenize(R"({"content":"hi"})", &content));
  EXPECT_EQ(content, "hi");
  EXPECT_EQ(ParseTokenize("{}", &content)->param, "content");
  EXPECT_FALSE(ParseDetokenize(R"({"tokens":[1,2]})", &tokens));
  EXPECT_THAT(tokens, ElementsAre(1, 2));
  EXPECT_EQ(ParseDetokenize(R"({"tokens":["a"]})", &tokens)->param, "tokens");
}

}  // namespace
}  // namespace dspark

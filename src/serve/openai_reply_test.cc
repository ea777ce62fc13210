#include "serve/openai_reply.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "replies.h"

namespace dspark {
namespace {

using nlohmann::json;

// The tiny vocabulary's ids of bytes: 3 + byte.
int32_t Byte(int byte) { return 3 + byte; }

std::shared_ptr<const SequenceStats> Stats(int prompt, int completion) {
  SequenceStats stats;
  stats.prompt_tokens = prompt, stats.cached_tokens = 2, stats.completion_tokens = completion;
  stats.rounds = 4, stats.committed = 6, stats.drafted = 8, stats.accepted = 2, stats.decode_ms = 100;
  stats.accepted_at = {2, 0}, stats.verified_at = {4, 4};
  return std::make_shared<SequenceStats>(stats);
}

TokenEvent Token(int32_t id, std::string text, float logprob = -1) {
  return {.token = id,
          .text = std::move(text),
          .logprob = {id, logprob},
          .top = {{id, logprob}, {Byte('z'), -2}}};
}

struct OpenAiReply : testing::Test {
  ReplyHeader Header(Endpoint endpoint) const {
    return {.endpoint = endpoint,
            .id = "id-1",
            .created = 5,
            .model = "m\"1",
            .tokenizer = model.files.tokenizer.get(),
            .n = 1,
            .logprobs = true,
            .include_usage = true};
  }
  // "h", "é" in two tokens, then the end token.
  std::vector<TokenEvent> Events() const {
    std::vector<TokenEvent> events{Token(Byte('h'), "h"), Token(Byte(0xc3), ""), Token(Byte(0xa9), "é"),
                                   Token(2, "", -INFINITY)};
    events[1].drafted = true;
    events[3].finish = FinishReason::kStop;
    events[3].stats = Stats(7, 4);
    return events;
  }
  ReplyChoice Choice() const {
    ReplyChoice choice;
    for (const TokenEvent& event : Events()) choice.Add(event, true);
    return choice;
  }
  test::TinyModel model;
};

TEST_F(OpenAiReply, ChatHasOpenAisShape) {
  const ReplyChoice choices[] = {Choice()};
  const json reply = json::parse(ReplyBody(Header(Endpoint::kChat), choices));
  EXPECT_EQ(reply["object"], "chat.completion");
  EXPECT_EQ(reply["model"], "m\"1");
  EXPECT_EQ(reply["usage"], json({{"prompt_tokens", 7},
                                  {"completion_tokens", 4},
                                  {"total_tokens", 11},
                                  {"prompt_tokens_details", {{"cached_tokens", 2}}}}));
  const json& choice = reply["choices"][0];
  EXPECT_EQ(choice["message"], json({{"role", "assistant"}, {"content", "hé"}, {"refusal", nullptr}}));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["timings"]["tau"], 1.5);
  EXPECT_EQ(choice["timings"]["decode_tok_per_s"], 30);
  const json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u) << "the end token has no log-probability";
  EXPECT_EQ(content[1]["token"], "\uFFFD");
  EXPECT_EQ(content[1]["bytes"], json({0xc3}));
  EXPECT_EQ(content[0]["top_logprobs"][1], json({{"token", "z"}, {"logprob", -2}, {"bytes", {'z'}}}));
}

TEST_F(OpenAiReply, CompletionHasOpenAisShape) {
  const ReplyChoice choices[] = {Choice()};
  const json reply = json::parse(ReplyBody(Header(Endpoint::kCompletions), choices));
  EXPECT_EQ(reply["object"], "text_completion");
  EXPECT_EQ(reply["choices"][0]["text"], "hé");
  const json& logprobs = reply["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"h", "bytes:\\xc3", "bytes:\\xa9"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({-1, -1, -1}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 2}));
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"h", -1}, {"z", -2}}));
}

TEST_F(OpenAiReply, ChoicesOfOnePromptCountItOnce) {
  ReplyHeader header = Header(Endpoint::kCompletions);
  header.n = 2;
  const ReplyChoice choices[] = {Choice(), Choice(), Choice(), Choice()};
  const json reply = json::parse(ReplyBody(header, choices));
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 14);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 16);
}

// The data of each event; the last is [DONE].
std::vector<std::string> Split(const std::string& stream) {
  std::vector<std::string> data;
  for (size_t begin = 0, end; begin < stream.size(); begin = end + 2) {
    end = stream.find("\n\n", begin);
    EXPECT_EQ(stream.substr(begin, 6), "data: ");
    data.push_back(stream.substr(begin + 6, end - begin - 6));
  }
  return data;
}

TEST_F(OpenAiReply, ChunksAddUpToTheReply) {
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    const bool chat = endpoint == Endpoint::kChat;
    ReplyChunks chunks(Header(endpoint));
    std::string out;
    chunks.Begin(0, &out);
    for (const TokenEvent& event : Events()) chunks.Token(0, event, &out);
    chunks.Finish(0, Events().back(), &out);
    const ReplyChoice choices[] = {Choice()};
    chunks.End(choices, &out);
    const json whole = json::parse(ReplyBody(Header(endpoint), choices));

    std::vector<std::string> data = Split(out);
    EXPECT_EQ(data.back(), "[DONE]");
    data.pop_back();
    std::string text, finish;
    json logprobs = json::array(), usage, offsets = json::array();
    std::vector<bool> drafted;
    for (const std::string& line : data) {
      const json chunk = json::parse(line);
      EXPECT_EQ(chunk["id"], "id-1");
      ASSERT_TRUE(chunk.contains("usage"));
      if (chunk["choices"].empty()) usage = chunk["usage"];
      for (const json& choice : chunk["choices"]) {
        text += chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
        if (choice.contains("drafted")) drafted.push_back(choice["drafted"]);
        if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
        if (choice["logprobs"].is_null()) continue;
        for (const json& entry : choice["logprobs"][chat ? "content" : "tokens"]) logprobs.push_back(entry);
        if (!chat) offsets.push_back(choice["logprobs"]["text_offset"][0]);
      }
    }
    EXPECT_EQ(text, "hé");
    EXPECT_EQ(finish, "stop");
    EXPECT_EQ(usage, whole["usage"]);
    EXPECT_EQ(drafted, std::vector<bool>({false, true, false}));
    EXPECT_EQ(logprobs, whole["choices"][0]["logprobs"][chat ? "content" : "tokens"]);
    if (!chat) {
      EXPECT_EQ(offsets, whole["choices"][0]["logprobs"]["text_offset"]);
    }
    EXPECT_EQ(json::parse(data.front())["choices"][0].contains("delta"), chat);
  }
}

TEST_F(OpenAiReply, ErrorsHaveOpenAisShape) {
  const json error = json::parse(ErrorBody({.message = "bad \xff", .param = "n"}))["error"];
  EXPECT_EQ(error["message"], "bad \uFFFD");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error["param"], "n");
  EXPECT_TRUE(json::parse(ErrorBody({.message = "x"}))["error"]["param"].is_null());
}

}  // namespace
}  // namespace dspark

#include "apps/http_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <map>

#include "core/clock.h"

namespace dspark {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string Answer(const std::string& text) {
  return json{{"choices", {{{"message", {{"content", text}}}, {"finish_reason", "stop"}}}},
              {"usage", {{"completion_tokens", 3}}}}
      .dump();
}

// A server on a port of its own. `answer` is asked for every call but the probe, on threads of the server.
class FakeServer {
 public:
  using Handler = std::function<void(const json& body, httplib::Response&)>;
  explicit FakeServer(Handler answer, const std::string& path = "/v1") {
    server_.Post(path + "/chat/completions",
                 [=, this](const httplib::Request& request, httplib::Response& response) {
                   const json body = json::parse(request.body);
                   if (body["messages"][0]["content"] == "Hello")
                     return response.set_content(Answer("Hi"), "text/json");
                   key = request.get_header_value("Authorization");
                   ++calls;
                   answer(body, response);
                 });
    server_.set_keep_alive_timeout(1);
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(milliseconds(1));
  }
  ~FakeServer() { Stop(); }
  void Stop() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  std::string Url(const std::string& path = "") const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }

  std::atomic<int> calls{0};
  std::string key;

 private:
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

void Echo(const json& body, httplib::Response& response) {
  response.set_content(Answer(body["messages"].back()["content"].get<std::string>() + "!"), "text/json");
}

class HttpBackendTest : public testing::Test {
 protected:
  Result<std::unique_ptr<HttpBackend>> Open() {
    return HttpBackend::Open(options_, reply_,
                             [this](const std::string& line) { warnings_.push_back(line); });
  }
  // Submits calls 0 … n-1 and gives their replies by ticket.
  static Result<std::map<int64_t, ChatReply>> AskAll(HttpBackend& backend, int n) {
    for (int i = 0; i < n; ++i)
      backend.Submit({.ticket = i, .messages = {{"user", fmt::format("q{}", i)}}, .seed = uint64_t(i) << 33});
    std::map<int64_t, ChatReply> replies;
    const double start = NowMs();
    while (int(replies.size()) < n && NowMs() - start < 30000) {
      DSPARK_ASSIGN_OR_RETURN(const auto polled, backend.Poll());
      for (const ChatReply& reply : polled) replies[reply.ticket] = reply;
    }
    return replies;
  }
  static std::vector<std::string> Texts(const std::map<int64_t, ChatReply>& replies) {
    std::vector<std::string> texts;
    for (const auto& [ticket, reply] : replies) texts.push_back(reply.content + reply.error);
    return texts;
  }

  HttpOptions options_ = {
      .servers = {}, .model = "m", .api_key = {}, .concurrency = 2, .backoff_ms = 5, .timeout_ms = 5000};
  ReplyOptions reply_;
  std::vector<std::string> warnings_;
};

TEST_F(HttpBackendTest, SettingsGoByTheirOwnNames) {
  reply_ = {.sampling = {.temperature = 0.5f, .top_k = 20, .top_p = 0.75f, .min_p = 0.25f},
            .max_tokens = 7,
            .no_think = true};
  reply_.sampling.repetition_penalty = 1.5f;
  const ChatCall call{.ticket = 0, .messages = {{"user", "x"}}, .seed = uint64_t(3) << 33};
  EXPECT_EQ(RequestBody(options_, reply_, call),
            json({{"model", "m"},
                  {"messages", {{{"role", "user"}, {"content", "x"}}}},
                  {"max_tokens", 7},
                  {"temperature", 0.5},
                  {"top_p", 0.75},
                  {"top_k", 20},
                  {"min_p", 0.25},
                  {"repetition_penalty", 1.5},
                  {"seed", 3},
                  {"stream", false},
                  {"chat_template_kwargs", {{"enable_thinking", false}}}}));
  const json plain = RequestBody(options_, {}, call);
  for (const char* name :
       {"top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "chat_template_kwargs"}) {
    EXPECT_FALSE(plain.contains(name)) << name;
  }
}

TEST_F(HttpBackendTest, WhatServersSay) {
  const auto error = [](int status, const std::string& body) {
    return ParseAnswer(status, body).reply.error;
  };
  const auto kind = [](int status, const std::string& body) { return ParseAnswer(status, body).kind; };
  using Kind = HttpAnswer::Kind;
  const HttpAnswer good = ParseAnswer(
      200, R"({"choices":[{"message":{"content":"x","reasoning_content":"t"},"finish_reason":"length"}],)"
           R"("usage":{"completion_tokens":4}})");
  EXPECT_EQ(good.kind, Kind::kReply);
  EXPECT_EQ(good.reply.content + good.reply.thinking + good.reply.finish_reason, "xtlength");
  EXPECT_EQ(good.tokens, 4);
  for (const char* broken :
       {"", "{\"choices\":[", "[]", "{}", "{\"choices\":null}", "{\"choices\":[]}", "{\"choices\":[3]}",
        "{\"choices\":[{\"message\":null}]}", "{\"choices\":[{\"message\":{\"content\":null}}]}",
        "{\"choices\":[{\"message\":{\"content\":\"\xff\"}}]}"}) {
    EXPECT_EQ(kind(200, broken), Kind::kFailed) << broken;
    EXPECT_NE(error(200, broken), "") << broken;
  }
  EXPECT_EQ(kind(500, "oh"), Kind::kFailed);
  EXPECT_EQ(kind(429, "slow down"), Kind::kFailed);
  EXPECT_EQ(kind(400, "no\nsuch model"), Kind::kRefused);
  EXPECT_EQ(error(400, "no\nsuch model"), "HTTP status 400: no\\x0asuch model");
}

TEST_F(HttpBackendTest, AnswersComeBackToTheirTickets) {
  FakeServer server(Echo), other(Echo, "/api");
  options_.servers = {server.Url(), other.Url("/api/")};
  options_.api_key = "secret";
  auto backend = Open();
  ASSERT_TRUE(backend.ok()) << backend.error().text;
  EXPECT_TRUE((*backend)->HasRoom());
  const auto replies = AskAll(**backend, 40);
  ASSERT_TRUE(replies.ok());
  ASSERT_EQ(replies->size(), 40u);
  for (const auto& [ticket, reply] : *replies) EXPECT_EQ(reply.content, fmt::format("q{}!", ticket));
  EXPECT_EQ((*backend)->tokens(), 120);
  EXPECT_EQ(server.calls + other.calls, 40);
  EXPECT_GT(server.calls, 0);
  EXPECT_GT(other.calls, 0);
  EXPECT_EQ(server.key, "Bearer secret");
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(HttpBackendTest, ASlowServerHoldsUpOnlyItsOwnCalls) {
  FakeServer fast(Echo);
  FakeServer slow([&](const json& body, httplib::Response& response) {
    while (fast.calls < 28) std::this_thread::sleep_for(milliseconds(1));  // all but those that are here
    Echo(body, response);
  });
  options_.servers = {slow.Url(), fast.Url()};
  options_.timeout_ms = 20000;
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  ASSERT_EQ(AskAll(**backend, 30)->size(), 30u);
  EXPECT_LE(slow.calls, 2);
}

TEST_F(HttpBackendTest, FailuresAreRetriedElsewhere) {
  std::atomic<int> turn{0};
  FakeServer bad([&](const json&, httplib::Response& response) {
    const char* broken[] = {"{\"choices\":[", "{\"choices\":[{\"message\":{\"content\":null}}]}", ""};
    const int t = turn++ % 4;
    if (t == 3) response.status = 503;
    response.set_content(t == 3 ? "busy" : broken[t], "text/json");
  });
  FakeServer good(Echo);
  options_.servers = {bad.Url(), good.Url()};
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  const auto replies = AskAll(**backend, 20);
  ASSERT_EQ(replies->size(), 20u);
  for (const auto& [ticket, reply] : *replies) EXPECT_EQ(reply.content, fmt::format("q{}!", ticket));
  EXPECT_GT(bad.calls, 0);
}

TEST_F(HttpBackendTest, RetriesEndAndRefusalsAreFinal) {
  FakeServer server([](const json& body, httplib::Response& response) {
    response.status = body["messages"][0]["content"] == "q0" ? 400 : 500;
    response.set_content("no", "text/plain");
  });
  options_.servers = {server.Url()};
  options_.retries = 2;
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  const auto replies = AskAll(**backend, 2);
  ASSERT_TRUE(replies.ok());
  EXPECT_THAT(Texts(*replies),
              ElementsAre(server.Url() + ": HTTP status 400: no", server.Url() + ": HTTP status 500: no"));
  EXPECT_EQ(server.calls, 1 + 3);
}

TEST_F(HttpBackendTest, DeadServersAreLeftOut) {
  FakeServer good(Echo);
  auto dead = std::make_unique<FakeServer>(Echo);
  const std::string url = dead->Url();
  dead.reset();
  options_.servers = {url, good.Url()};
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(url), HasSubstr("left out"))));
  EXPECT_EQ(AskAll(**backend, 3)->size(), 3u);
  options_.servers = {url};
  const auto none = Open();
  ASSERT_FALSE(none.ok());
  EXPECT_THAT(none.error().text, AllOf(HasSubstr("no server answers"), HasSubstr(url)));
  for (const char* bad : {"127.0.0.1:80", "http://", "http://:80", "http://h:0x", "http://h:99999"}) {
    options_.servers = {bad};
    const auto refused = Open();
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_THAT(refused.error().text, HasSubstr("not a URL")) << bad;
  }
}

TEST_F(HttpBackendTest, ServersThatFallSilentEndTheRun) {
  FakeServer server(Echo);
  options_.servers = {server.Url()};
  options_.retries = 20;
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  ASSERT_EQ(AskAll(**backend, 2)->size(), 2u);
  server.Stop();
  const auto gone = AskAll(**backend, 8);
  ASSERT_FALSE(gone.ok());
  EXPECT_THAT(gone.error().text, HasSubstr("no server answers any more"));
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("left out from now on")));
}

TEST_F(HttpBackendTest, AHangingServerNeitherBlocksTheRunNorItsEnd) {
  std::atomic<bool> over{false};
  FakeServer hangs([&](const json&, httplib::Response&) {
    while (!over) std::this_thread::sleep_for(milliseconds(5));
  });
  FakeServer good(Echo);
  options_.servers = {hangs.Url(), good.Url()};
  options_.timeout_ms = 200;
  {
    auto backend = Open();
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ(AskAll(**backend, 10)->size(), 10u) << "calls that hung are done elsewhere";
  }
  options_.servers = {hangs.Url()};
  options_.timeout_ms = 20000;
  auto backend = Open();
  ASSERT_TRUE(backend.ok());
  (*backend)->Submit({.ticket = 0, .messages = {{"user", "x"}}, .seed = 0});
  while (hangs.calls == 0) std::this_thread::sleep_for(milliseconds(1));
  const double start = NowMs();
  backend->reset();
  EXPECT_LT(NowMs() - start, 5000);
  over = true;
}

}  // namespace
}  // namespace dspark

// The server in this process on the tiny model, asked over real connections.
#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <random>

#include "draft/prompt_lookup.h"
#include "replies.h"
#include "sanitized.h"

namespace dspark {
namespace {

using nlohmann::json;
using test::TinyModel;

constexpr char kChat[] = "/v1/chat/completions", kCompletions[] = "/v1/completions",
               kJson[] = "application/json";

// Replies of thousands of tokens, which are under way for as long as a test needs them.
const test::TinyModelOptions kLongContext{
    .shape = {.max_context = 8192}, .max_context = 8192, .blocks = 4096};
constexpr int kLong = 8000;

// Keeps what is logged.
class LogSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // How many lines hold all of `parts`.
  int Count(const std::vector<std::string>& parts) {
    const std::scoped_lock lock(mutex_);
    return int(std::ranges::count_if(lines_, [&](const std::string& line) {
      return std::ranges::all_of(parts,
                                 [&](const std::string& part) { return line.find(part) != line.npos; });
    }));
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    lines_.emplace_back(message.payload.data(), message.payload.size());
  }
  void flush_() override {}
  std::vector<std::string> lines_;
};

struct Server {
  explicit Server(ServerOptions options = {}, int queue = 64, const test::TinyModelOptions& tiny = {})
      : model(tiny),
        engine(*model.target, *model.blocks, &lookup, model.files.tokenizer.get(), test::CheapRows(),
               {.max_sequences = 8, .follow_costs = false, .prefix_cache = true, .observer = &tally}),
        served{.name = "tiny",
               .alias = "what-m-says",
               .tokenizer = model.files.tokenizer.get(),
               .tokens = std::make_shared<TokenTrie>(*model.files.tokenizer, model.files.config.eos),
               .chat_format = ChatFormat::kChatMl,
               .bos = {},
               .vocab = model.vocab(),
               .context = model.target->limits().max_context},
        metrics("tiny"),
        observers({&metrics, &history}),
        loop(engine, {.queue = queue}, &tally, &observers),
        lines(std::make_shared<LogSink>()),
        log(std::make_shared<spdlog::logger>("test", lines)) {
    options.port = 0;
    options.keep_alive_s = 1;
    options.connections = 64;
    http = std::make_unique<HttpServer>(options, served, loop, metrics, history, log);
    const auto started = http->Start();
    EXPECT_TRUE(started.ok());
    port = *started;
  }
  httplib::Client Client() const {
    httplib::Client client("127.0.0.1", port);
    client.set_read_timeout(60);
    return client;
  }
  json Post(const char* path, const json& body, int status = 200) const {
    const auto response = Client().Post(path, body.dump(), kJson);
    EXPECT_TRUE(response) << httplib::to_string(response.error());
    if (!response) return {};
    EXPECT_EQ(response->status, status) << response->body;
    return json::parse(response->body);
  }

  TinyModel model;
  PromptLookup lookup;
  RoundTally tally;
  Engine engine;
  ServedModel served;
  ServeMetrics metrics;
  LoadHistory history;
  LoadObservers observers;
  EngineLoop loop;
  std::shared_ptr<LogSink> lines;
  std::shared_ptr<spdlog::logger> log;
  std::unique_ptr<HttpServer> http;
  int port = 0;
};

// Drafts come often where a text repeats itself.
json Ask(int i, int max_tokens = 40) {
  std::vector<int> prompt;
  for (int k = 0; k < 10 + i % 7; ++k) prompt.push_back(40 + (i * 7 + k % 4) % 60);
  return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
}

Request AsRequest(const json& ask) {
  Request request;
  request.prompt = ask["prompt"].get<std::vector<int32_t>>();
  request.max_tokens = ask["max_tokens"];
  request.sampling.temperature = ask["temperature"];
  request.seed = ask.value("seed", 0);
  request.ignore_eos = true;
  request.top_logprobs = ask.value("logprobs", -1);
  return request;
}

struct Streamed {
  std::string text, finish;
  int chunks = 0;
  bool done = false;
};

Streamed Stream(const Server& server, const char* path, json body) {
  body["stream"] = true;
  const auto response = server.Client().Post(path, body.dump(), kJson);
  Streamed result;
  EXPECT_TRUE(response);
  if (!response) return result;
  EXPECT_EQ(response->status, 200) << response->body;
  EXPECT_EQ(response->get_header_value("Content-Type"), "text/event-stream");
  std::istringstream lines(response->body);
  for (std::string line; std::getline(lines, line);) {
    if (line == "data: [DONE]") result.done = true;
    if (line.size() < 6 || result.done) continue;
    const json choice = json::parse(line.substr(6))["choices"][0];
    result.text +=
        choice.contains("delta") ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
    if (!choice["finish_reason"].is_null()) result.finish = choice["finish_reason"];
    ++result.chunks;
  }
  return result;
}

// `check` soon holds.
bool Soon(const std::function<bool()>& check) {
  for (int i = 0; i < 2000 && !check(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return check();
}

TEST(HttpServer, AnswersAsTheEngineAloneWholeAndStreamed) {
  Server server;
  TinyModel alone;
  int drafted = 0;
  for (int i = 0; i < 8; ++i) {
    json ask = Ask(i);
    if (i % 2) ask["temperature"] = 0.7, ask["seed"] = i;
    const test::Reply plain = test::Plain(alone, AsRequest(ask));
    const json reply = server.Post(kCompletions, ask);
    EXPECT_EQ(reply["choices"][0]["text"], plain.text);
    EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(reply["usage"]["completion_tokens"], 40);
    drafted += reply["choices"][0]["timings"]["accepted"].get<int>();
    const Streamed streamed = Stream(server, kCompletions, ask);
    EXPECT_EQ(streamed.text, plain.text);
    EXPECT_EQ(streamed.finish, "length");
    EXPECT_TRUE(streamed.done);
  }
  EXPECT_GT(drafted, 0) << "nothing was speculated";
}

TEST(HttpServer, ChatRendersTheTemplate) {
  Server server;
  const json ask{
      {"messages", {{{"role", "user"}, {"content", "hello"}}}}, {"max_tokens", 12}, {"temperature", 0}};
  const json raw{{"prompt", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"},
                 {"max_tokens", 12},
                 {"temperature", 0}};
  const json chat = server.Post(kChat, ask), text = server.Post(kCompletions, raw);
  EXPECT_EQ(chat["choices"][0]["message"]["content"], text["choices"][0]["text"]);
  EXPECT_EQ(chat["usage"]["total_tokens"], text["usage"]["total_tokens"]);
  EXPECT_EQ(Stream(server, kChat, ask).text, text["choices"][0]["text"]);
}

TEST(HttpServer, LogprobsAreThoseOfPlainDecoding) {
  Server server;
  TinyModel alone;
  int accepted = 0;
  for (int i = 0; i < 4; ++i) {
    json ask = Ask(i);
    ask["logprobs"] = 3;
    const test::Reply plain = test::Plain(alone, AsRequest(ask));
    const json choice = server.Post(kCompletions, ask)["choices"][0];
    accepted += choice["timings"]["accepted"].get<int>();
    ASSERT_EQ(choice["logprobs"]["token_logprobs"].size(), plain.events.size());
    for (size_t k = 0; k < plain.events.size(); ++k) {
      EXPECT_EQ(choice["logprobs"]["token_logprobs"][k].get<float>(), plain.events[k].logprob.logprob);
      EXPECT_TRUE(choice["logprobs"]["top_logprobs"][k].contains(choice["logprobs"]["tokens"][k]));
      EXPECT_GE(choice["logprobs"]["top_logprobs"][k].size(), 3u);
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(HttpServer, ChoicesHaveSeedsOfTheirOwn) {
  Server server;
  json ask = Ask(1, 20);
  ask["temperature"] = 1, ask["seed"] = 5, ask["n"] = 3;
  const json three = server.Post(kCompletions, ask)["choices"];
  ASSERT_EQ(three.size(), 3u);
  EXPECT_NE(three[0]["text"], three[1]["text"]);
  EXPECT_NE(three[1]["text"], three[2]["text"]);
  EXPECT_EQ(server.Post(kCompletions, ask)["choices"][2]["text"], three[2]["text"]);
  ask["n"] = 1;
  EXPECT_EQ(server.Post(kCompletions, ask)["choices"][0]["text"], three[0]["text"]);
}

json FormedChat(json form) {
  form["messages"] = {{{"role", "user"}, {"content", "Like {\"name\": \"Po\", \"open\": true}"}}};
  form["max_tokens"] = 160;
  if (!form.contains("temperature")) form["temperature"] = 0;
  return form;
}

const json kRiver = json::parse(R"({"type":"object","properties":{
    "name":{"type":"string","maxLength":5},"open":{"type":"boolean"}},"required":["name","open"],"additionalProperties":false})");
const json kTools =
    json::array({{{"type", "function"}, {"function", {{"name", "river"}, {"parameters", kRiver}}}},
                 {{"type", "function"}, {"function", {{"name", "now"}}}}});

TEST(HttpServer, RepliesKeepToASchemaWholeAndStreamed) {
  Server server({}, 64, kLongContext);
  int drafted = 0;
  for (int i = 0; i < 6; ++i) {
    const json ask =
        FormedChat({{"temperature", i == 0 ? 0 : 1},
                    {"seed", i},
                    {"response_format",
                     {{"type", "json_schema"},
                      {"json_schema", {{"name", "river"}, {"strict", true}, {"schema", kRiver}}}}}});
    const json choice = server.Post(kChat, ask)["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "stop");
    const std::string text = choice["message"]["content"];
    const json river = json::parse(text);
    EXPECT_EQ(river.size(), 2u);
    EXPECT_TRUE(river["name"].is_string() && river["open"].is_boolean()) << text;
    drafted += choice["timings"]["drafted"].get<int>();
    const Streamed streamed = Stream(server, kChat, ask);
    EXPECT_EQ(streamed.text, text);
    EXPECT_EQ(streamed.finish, "stop");
  }
  EXPECT_GT(drafted, 0);
}

// Noise seldom closes what it opens: where it does not, the reply is the beginning of an object.
TEST(HttpServer, RepliesCanBeJsonObjects) {
  Server server({}, 64, kLongContext);
  for (int i = 0; i < 6; ++i) {
    const json ask =
        FormedChat({{"temperature", 1}, {"seed", i}, {"response_format", {{"type", "json_object"}}}});
    const json choice = server.Post(kChat, ask)["choices"][0];
    const std::string text = choice["message"]["content"];
    EXPECT_EQ(text[0], '{');
    EXPECT_EQ(json::accept(text), choice["finish_reason"] == "stop") << text;
  }
}

TEST(HttpServer, RepliesCallTools) {
  Server server({}, 64, kLongContext);
  const json named{{"type", "function"}, {"function", {{"name", "river"}}}};
  for (const json& choice : {json("required"), named}) {
    const json ask = FormedChat({{"tools", kTools},
                                 {"tool_choice", choice},
                                 {"parallel_tool_calls", false},
                                 {"logit_bias", {{"123", 5}}}});
    const json reply = server.Post(kChat, ask)["choices"][0];
    ASSERT_EQ(reply["finish_reason"], "tool_calls") << reply;
    EXPECT_TRUE(reply["message"]["content"].is_null());
    ASSERT_EQ(reply["message"]["tool_calls"].size(), 1u);
    const json call = reply["message"]["tool_calls"][0];
    EXPECT_EQ(call["type"], "function");
    EXPECT_TRUE(choice.is_string() || call["function"]["name"] == "river");
    const json arguments = json::parse(call["function"]["arguments"].get<std::string>());
    EXPECT_EQ(arguments.size(), call["function"]["name"] == "river" ? 2u : 0u);
    const Streamed streamed = Stream(server, kChat, ask);
    EXPECT_EQ(streamed.text, "");
    EXPECT_EQ(streamed.finish, "tool_calls");
  }
  EXPECT_TRUE(Soon([&] { return server.lines->Count({"status=200", " finish=tool_calls"}) == 4; }));
  const json free = server.Post(kChat, FormedChat({{"tools", kTools}}))["choices"][0];
  EXPECT_NE(free["finish_reason"], "tool_calls");
  EXPECT_FALSE(free["message"]["content"].get<std::string>().empty());
}

TEST(HttpServer, SaysWhatIsWrongWithAForm) {
  Server server;
  const auto bad = [&](const json& form, const std::string& param, const std::string& text) {
    const json error = server.Post(kChat, FormedChat(form), 400)["error"];
    EXPECT_EQ(error["param"], param) << error;
    EXPECT_THAT(error["message"].get<std::string>(), testing::HasSubstr(text));
  };
  const auto schema = [](const json& text) {
    return json{
        {"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"schema", text}}}}}};
  };
  bad(schema({{"properties", {{"a", {{"not", true}}}}}}), "response_format.json_schema.schema",
      "#/properties/a: the keyword \"not\"");
  bad(schema({{"type", "strin"}}), "response_format.json_schema.schema", "\"strin\" is no type");
  bad({{"tools",
        json::array({{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"type", 5}}}}}}})}},
      "tools[0].function.parameters", "#/type: 5 is no type");
  bad({{"tools", kTools}, {"tool_choice", {{"type", "function"}, {"function", {{"name", "other"}}}}}},
      "tool_choice", "\"other\"");
  bad({{"tool_choice", "required"}}, "tool_choice", "no tools");
}

TEST(HttpServer, SaysWhatIsWrong) {
  Server server;
  const auto bad = [&](const char* path, const json& body, int status, const std::string& code) {
    const json error = server.Post(path, body, status)["error"];
    EXPECT_EQ(error["code"], code) << error;
    EXPECT_FALSE(error["message"].get<std::string>().empty());
  };
  bad(kCompletions, json::array(), 400, "invalid_json");
  // Deeper than a stack holds, in a body and in a text that is JSON itself.
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_EQ(server.Client().Post(kChat, "{\"tools\":" + deep + "}", kJson)->status, 400);
  const json call = {{"id", "c"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", deep}}}};
  bad(kChat,
      {{"messages",
        {{{"role", "user"}, {"content", "x"}},
         {{"role", "assistant"}, {"tool_calls", json::array({call})}}}}},
      400, "context_length_exceeded");
  bad(kCompletions, {{"prompt", "x"}, {"model", "other"}}, 404, "model_not_found");
  bad(kCompletions, {{"prompt", std::vector<int>(300, 5)}}, 400, "context_length_exceeded");
  bad(kCompletions, {{"prompt", {5, 295}}}, 400, "invalid_value");
  bad(kCompletions, {{"prompt", {5}}, {"logit_bias", {{"295", 1}}}}, 400, "invalid_value");
  bad(kCompletions, {{"prompt", {5}}, {"n", 100}}, 400, "invalid_value");
  for (const char* bias : {R"({"295":1})", R"({"x":1})", R"({"5":"1"})", R"({"5":101})", "[5]"}) {
    const json error = server.Post(kCompletions, {{"prompt", {5}}, {"logit_bias", json::parse(bias)}}, 400);
    EXPECT_EQ(error["error"]["param"], "logit_bias") << bias;
  }
  for (const char* tokens :
       {"[5,295]", "[-1]", "[2147483648]", "[1.5]", "[\"a\"]", "\"hello\"", "{}", "null"}) {
    const json error = server.Post("/detokenize", {{"tokens", json::parse(tokens)}}, 400)["error"];
    EXPECT_EQ(error["param"], "tokens") << tokens;
    EXPECT_THAT(error["message"].get<std::string>(), testing::StartsWith("tokens ")) << tokens;
  }
  bad("/nothing", json::object(), 404, "not_found");
  EXPECT_THAT(server.Post("/v1/nothing", {}, 404)["error"]["message"].get<std::string>(),
              testing::HasSubstr("POST /v1/chat/completions"));
  bad("/health", json::object(), 405, "method_not_allowed");
  auto client = server.Client();
  const auto form = client.Post(kChat, "a=b", "application/x-www-form-urlencoded");
  EXPECT_EQ(form->status, 415);
  EXPECT_EQ(json::parse(form->body)["error"]["code"], "unsupported_media_type");
  const auto get = client.Get(kChat);
  EXPECT_EQ(get->status, 405);
  EXPECT_EQ(get->get_header_value("Allow"), "POST");
}

TEST(HttpServer, LimitsTheBody) {
  Server server({.max_body = 1000});
  const json error = server.Post(kCompletions, {{"prompt", std::string(2000, 'x')}}, 413)["error"];
  EXPECT_EQ(error["code"], "body_too_long");
}

TEST(HttpServer, AsksForAKey) {
  Server server({.api_keys = {"one", "two"}});
  auto client = server.Client();
  EXPECT_EQ(client.Get("/health")->status, 200);
  EXPECT_EQ(client.Get("/")->status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/stats"}) EXPECT_EQ(client.Get(path)->status, 401);
  EXPECT_EQ(server.Post(kCompletions, Ask(0), 401)["error"]["code"], "invalid_api_key");
  for (const char* key : {"on", "onee", "One", ""}) {
    client.set_bearer_token_auth(key);
    EXPECT_EQ(client.Get("/v1/models")->status, 401) << key;
  }
  client.set_bearer_token_auth("two");
  EXPECT_EQ(client.Get("/v1/models")->status, 200);
  EXPECT_EQ(server.Client().Get("/v1/models", {{"Authorization", "bearer two"}})->status, 200);
}

TEST(HttpServer, ServesTheSmallRoutes) {
  Server server({.cors_origin = "https://example.org"});
  auto client = server.Client();
  EXPECT_EQ(json::parse(client.Get("/v1/models")->body)["data"][0]["id"], "tiny");
  EXPECT_EQ(json::parse(client.Get("/v1/models/tiny")->body)["id"], "tiny");
  EXPECT_EQ(json::parse(client.Get("/v1/models/what-m-says")->body)["id"], "tiny");
  EXPECT_EQ(client.Get("/v1/models/other")->status, 404);
  const json tokens = server.Post("/tokenize", {{"content", "hello"}})["tokens"];
  EXPECT_EQ(server.Post("/detokenize", {{"tokens", tokens}})["content"], "hello");
  const auto options = client.Options(kChat);
  EXPECT_EQ(options->status, 204);
  EXPECT_EQ(options->get_header_value("Access-Control-Allow-Origin"), "https://example.org");
  EXPECT_THAT(options->get_header_value("Access-Control-Allow-Headers"), testing::HasSubstr("Authorization"));
  const auto asked =
      client.Options(kChat, {{"Access-Control-Request-Headers", "authorization,x-stainless-os"}});
  EXPECT_EQ(asked->get_header_value("Access-Control-Allow-Headers"), "authorization,x-stainless-os");
  const auto health = client.Get("/health", {{"X-Request-Id", "mine-7"}});
  EXPECT_EQ(health->get_header_value("X-Request-Id"), "mine-7");
  EXPECT_NE(client.Get("/health", {{"X-Request-Id", "bad id"}})->get_header_value("X-Request-Id"), "bad id");
}

TEST(HttpServer, CountsWhatHappens) {
  Server server;
  for (int i = 0; i < 3; ++i) server.Post(kCompletions, Ask(i, 30));
  const std::string text = server.Client().Get("/metrics")->body;
  EXPECT_THAT(text,
              testing::HasSubstr("vllm:generation_tokens_total{engine=\"0\",model_name=\"tiny\"} 90\n"));
  EXPECT_THAT(text, testing::HasSubstr("finished_reason=\"length\",model_name=\"tiny\"} 3\n"));
  EXPECT_THAT(text, testing::HasSubstr("vllm:time_to_first_token_seconds_count"));
  EXPECT_THAT(text, testing::HasSubstr("dspark_steps_per_second{"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr(
                        "vllm:spec_decode_num_drafts_total{engine=\"0\",model_name=\"tiny\"} 0\n")));
  const json stats = json::parse(server.Client().Get("/stats")->body);
  int tokens = 0;
  for (const json& second : stats["seconds"]) tokens += second["tokens"].get<int>();
  EXPECT_EQ(tokens, 90);
}

TEST(HttpServer, ASecondTurnFindsTheFirst) {
  Server server, fresh;
  json ask{{"messages", json::array()}, {"max_tokens", 40}, {"temperature", 0}, {"ignore_eos", true}};
  ask["messages"].push_back({{"role", "user"}, {"content", "hello hello hello, how are you today?"}});
  const json first = server.Post(kChat, ask);
  EXPECT_EQ(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  ask["messages"].push_back(first["choices"][0]["message"]);
  ask["messages"].push_back({{"role", "user"}, {"content", "and now?"}});
  const json second = server.Post(kChat, ask), alone = fresh.Post(kChat, ask);
  EXPECT_EQ(second["choices"][0]["message"], alone["choices"][0]["message"]);
  EXPECT_EQ(second["choices"][0]["timings"]["accepted"], alone["choices"][0]["timings"]["accepted"]);
  const int cached = second["usage"]["prompt_tokens_details"]["cached_tokens"];
  EXPECT_GE(cached, first["usage"]["prompt_tokens"].get<int>() / 16 * 16);
  const std::string text = server.Client().Get("/metrics")->body;
  EXPECT_THAT(text, testing::HasSubstr(fmt::format(
                        "vllm:prefix_cache_hits_total{{engine=\"0\",model_name=\"tiny\"}} {}\n", cached)));
}

TEST(HttpServer, RefusesWhenFullAndWhenDraining) {
  Server server({}, /*queue=*/0, kLongContext);
  std::vector<std::thread> busy;
  for (int i = 0; i < 8; ++i) {
    busy.emplace_back([&, i] {
      EXPECT_EQ(server.Post(kCompletions, Ask(i, kLong), 503)["error"]["code"], "shutting_down");
    });
  }
  ASSERT_TRUE(Soon([&] { return server.loop.live() == 8; }));
  const auto full = server.Client().Post(kCompletions, Ask(9).dump(), kJson);
  EXPECT_EQ(full->status, 429);
  EXPECT_GE(std::stoi(full->get_header_value("Retry-After")), 1);
  std::thread drain([&] { server.loop.Drain(100); });
  ASSERT_TRUE(Soon([&] { return server.loop.draining(); }));
  EXPECT_EQ(server.Client().Get("/health")->status, 503);
  EXPECT_EQ(server.Post(kCompletions, Ask(9), 503)["error"]["code"], "shutting_down");
  drain.join();
  for (std::thread& thread : busy) thread.join();
}

TEST(HttpServer, EndsWhatTakesTooLong) {
  Server server({.request_timeout_s = 0.02}, 64, kLongContext);
  json ask = Ask(1, kLong);
  ask["n"] = 2;
  EXPECT_EQ(server.Post(kCompletions, ask, 504)["error"]["code"], "timeout");
  EXPECT_TRUE(Soon([&] { return server.loop.live() == 0; }));
  EXPECT_TRUE(Soon([&] {
    return server.lines->Count({"status=504 ", " prompt=11 ", " finish=timeout"}) == 1;
  }));
}

// A client that goes away frees its sequences, streamed or not.
TEST(HttpServer, CancelsWhenTheClientLeaves) {
  Server server({}, 64, kLongContext);
  for (const bool streamed : {true, false}) {
    std::vector<std::thread> clients;
    for (int i = 0; i < 8; ++i) {
      clients.emplace_back([&, i] {
        json ask = Ask(i, kLong);
        ask["stream"] = streamed;
        httplib::Client client = server.Client();
        if (!streamed) client.set_read_timeout(0, 50'000);
        httplib::Request request;
        request.method = "POST", request.path = kCompletions, request.body = ask.dump();
        request.headers = {{"Content-Type", kJson}};
        request.content_receiver = [](const char*, size_t, uint64_t, uint64_t) { return false; };
        (void)client.send(request);
      });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_TRUE(Soon([&] { return server.loop.live() == 0; }));
  }
  EXPECT_THAT(server.metrics.Text(),
              testing::HasSubstr("finished_reason=\"abort\",model_name=\"tiny\"} 16\n"));
  for (int i = 0; i < 7; ++i) {  // the eighth prompt is as long as the first
    const std::string prompt = fmt::format(" prompt={} ", 10 + i);
    EXPECT_TRUE(Soon([&] { return server.lines->Count({"status=499 ", prompt}) == (i == 0 ? 4 : 2); })) << i;
  }
  EXPECT_EQ(server.engine.load().used_blocks, 0);
}

// Many clients at once: some leave, some read slowly, some send rubbish; the replies of the others are those
// of the engine alone.
TEST(HttpServer, HoldsUnderRandomClients) {
  constexpr int kClients = test::kSanitized ? 24 : 64, kRequests = 4;
  Server server({}, 1000);
  TinyModel alone;
  std::vector<std::string> expected;
  for (int i = 0; i < 32; ++i) expected.push_back(test::Plain(alone, AsRequest(Ask(i))).text);
  std::vector<std::thread> clients;
  std::atomic<int> right{0}, left{0}, refused{0};
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      std::mt19937 random{uint32_t(c)};
      for (int k = 0; k < kRequests; ++k) {
        const int i = int(random() % 32), kind = int(random() % 5);
        json ask = Ask(i);
        if (kind == 0) {  // rubbish
          const std::string body = ask.dump().substr(0, random() % 30);
          const auto response = server.Client().Post(kCompletions, body, kJson);
          refused += response && response->status == 400;
        } else if (kind == 1) {  // leaves after some bytes
          ask["stream"] = true;
          httplib::Request request;
          request.method = "POST", request.path = kCompletions, request.body = ask.dump();
          request.headers = {{"Content-Type", kJson}};
          size_t bytes = 0;
          const size_t enough = random() % 4000;
          request.content_receiver = [&](const char*, size_t n, uint64_t, uint64_t) {
            return (bytes += n) < enough;
          };
          (void)server.Client().send(request);
          ++left;
        } else if (kind == 2) {  // slow
          ask["stream"] = true;
          httplib::Request request;
          request.method = "POST", request.path = kCompletions, request.body = ask.dump();
          request.headers = {{"Content-Type", kJson}};
          std::string text;
          request.content_receiver = [&](const char* data, size_t n, uint64_t, uint64_t) {
            text.append(data, n);
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            return true;
          };
          (void)server.Client().send(request);
          right += text.ends_with("data: [DONE]\n\n");
        } else if (kind == 3) {
          right += Stream(server, kCompletions, ask).text == expected[size_t(i)];
        } else {
          right += server.Post(kCompletions, ask)["choices"][0]["text"] == expected[size_t(i)];
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right + left + refused, kClients * kRequests);
  EXPECT_TRUE(Soon([&] { return server.loop.live() == 0; }));
  server.loop.Drain(60'000);
  EXPECT_EQ(server.engine.load().used_blocks, 0);
}

TEST(HttpServer, SaysWhenItsPortIsTaken) {
  Server first;
  HttpServer second({.port = first.port}, first.served, first.loop, first.metrics, first.history, first.log);
  const auto started = second.Start();
  ASSERT_FALSE(started.ok());
  EXPECT_THAT(started.error().text, testing::HasSubstr("cannot listen"));
}

}  // namespace
}  // namespace dspark

// The C ABI: every error one code and one line, replies that are the engine's own, and use from many threads.
#include <dspark/dspark.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "replies.h"
#include "tiny_model.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A failed call: its code, and one line that holds `text`.
void ExpectError(int64_t got, int32_t code, const std::string& text) {
  EXPECT_EQ(got, code);
  const std::string line = dspark_last_error();
  EXPECT_THAT(line, HasSubstr(text));
  EXPECT_THAT(line, Not(HasSubstr("\n")));
}

struct AbiReply {
  std::string text;
  std::vector<int32_t> tokens;
  int32_t finish = DSPARK_FINISH_NONE;
};

class CAbi : public testing::Test {
 protected:
  explicit CAbi(const TinyLlama& shape = {}) : model_(WriteTinyLlamaGguf(dir_.path(), 1, shape)) {}
  ~CAbi() override {
    if (engine_ != nullptr) dspark_free(engine_);
  }

  dspark_options Options() const {
    dspark_options options;
    dspark_options_init(&options, sizeof options);
    options.model = model_.c_str();
    options.threads = 2;
    options.keep_costs = 0;
    options.policy = "fixed:3";
    options.parallel = 4;
    return options;
  }
  void Load() {
    const dspark_options options = Options();
    ASSERT_EQ(dspark_load(&options, &engine_), DSPARK_OK) << dspark_last_error();
  }
  static dspark_request Asking(const std::vector<int32_t>& prompt, int max_tokens = 24) {
    dspark_request request;
    dspark_request_init(&request, sizeof request);
    request.prompt = prompt.data();
    request.prompt_tokens = prompt.size();
    request.max_tokens = max_tokens;
    request.ignore_eos = 1;
    return request;
  }
  dspark_request_id Submit(const dspark_request& request) {
    dspark_request_id id = 0;
    EXPECT_EQ(dspark_submit(engine_, &request, &id), DSPARK_OK) << dspark_last_error();
    return id;
  }
  // What `request` gives when it is submitted as it is, or the code of the refusal.
  int32_t Try(const dspark_request& request) {
    dspark_request_id id = 0;
    return dspark_submit(engine_, &request, &id);
  }
  void Poll(dspark_request_id id, AbiReply* reply) {
    dspark_event event;
    int32_t got = 0;
    while ((got = dspark_poll(engine_, id, &event, sizeof event)) == 1) {
      EXPECT_EQ(reply->finish, DSPARK_FINISH_NONE) << "an event after the end";
      reply->text.append(event.text, event.text_bytes);
      EXPECT_EQ(event.text[event.text_bytes], 0);
      if (event.token >= 0) reply->tokens.push_back(event.token);
      reply->finish = event.finish;
    }
    EXPECT_EQ(got, 0) << dspark_last_error();
  }
  void StepToEnd() {
    int32_t live = 1;
    while (live > 0) live = dspark_step(engine_);
    EXPECT_EQ(live, 0) << dspark_last_error();
  }

  TempDir dir_;
  const std::string model_;
  dspark_engine* engine_ = nullptr;
  const std::vector<int32_t> prompt_{40, 41, 42, 40, 41, 42, 40};
};

TEST_F(CAbi, DefaultsAreThoseOfRun) {
  dspark_request request;
  dspark_request_init(&request, sizeof request);
  EXPECT_EQ(request.size, sizeof request);
  EXPECT_EQ(request.max_tokens, 512);
  EXPECT_EQ(request.temperature, 0);
  EXPECT_EQ(request.top_p, 1);
  EXPECT_EQ(request.seed, -1);
  EXPECT_EQ(request.speculate, 1);
  dspark_options options;
  dspark_options_init(&options, sizeof options);
  EXPECT_EQ(options.parallel, 1);
  EXPECT_EQ(options.model, nullptr);
  EXPECT_EQ(dspark_abi_version(), DSPARK_ABI_VERSION);
  EXPECT_THAT(dspark_version(), HasSubstr("."));
  EXPECT_STREQ(dspark_finish_name(DSPARK_FINISH_LENGTH), "length");
  EXPECT_STREQ(dspark_finish_name(77), "");
  dspark_options_init(nullptr, 0);
  dspark_request_init(nullptr, 0);
}

TEST_F(CAbi, WhatCannotBeLoadedIsOneCodeAndOneLine) {
  const auto load = [&](auto change) {
    dspark_options options = Options();
    change(options);
    engine_ = reinterpret_cast<dspark_engine*>(7);
    const int32_t code = dspark_load(&options, &engine_);
    EXPECT_EQ(engine_, nullptr) << "of no use after a failure";
    return code;
  };
  const std::string missing = dir_.path() + "/none.gguf", broken = WriteFile(dir_.path() + "/x.gguf", "GGUF");
  ExpectError(load([&](auto& o) { o.model = missing.c_str(); }), DSPARK_ERROR_LOAD, "none.gguf");
  ExpectError(load([&](auto& o) { o.model = broken.c_str(); }), DSPARK_ERROR_LOAD, "x.gguf");
  ExpectError(load([&](auto& o) { o.draft = "/nowhere"; }), DSPARK_ERROR_LOAD, "/nowhere");
  ExpectError(load([](auto& o) { o.ctx = 1 << 19; }), DSPARK_ERROR_LOAD, "512");
  ExpectError(load([](auto& o) { o.ctx = 15; }), DSPARK_ERROR_PARAMETER, "ctx is 15; it may be 0 or 16 to");
  ExpectError(load([](auto& o) { o.threads = -1; }), DSPARK_ERROR_PARAMETER, "threads is -1");
  ExpectError(load([](auto& o) { o.parallel = 0; }), DSPARK_ERROR_PARAMETER, "parallel is 0; it may be 1 to");
  ExpectError(load([](auto& o) { o.kv_tokens = 3; }), DSPARK_ERROR_PARAMETER, "kv_tokens is 3");
  ExpectError(load([](auto& o) { o.isa = "mmx"; }), DSPARK_ERROR_PARAMETER, "isa mmx is unknown");
  ExpectError(load([](auto& o) { o.kv = "f64"; }), DSPARK_ERROR_PARAMETER, "kv f64 is unknown");
  ExpectError(load([](auto& o) { o.weights = "int2"; }), DSPARK_ERROR_PARAMETER, "weights int2 is");
  ExpectError(load([](auto& o) { o.draft_weights = "int3"; }), DSPARK_ERROR_PARAMETER,
              "draft_weights int3 is");
  ExpectError(load([](auto& o) { o.policy = "fixed:99"; }), DSPARK_ERROR_PARAMETER, "policy fixed:99");
  ExpectError(load([](auto& o) { o.accept = "all"; }), DSPARK_ERROR_PARAMETER, "all");
  ExpectError(load([](auto& o) { o.size = 0; }), DSPARK_ERROR_VERSION, "dspark_options has size 0");
  ExpectError(load([](auto& o) { o.size += 8; }), DSPARK_ERROR_VERSION, "newer libdspark");
  const dspark_options options = Options();
  ExpectError(dspark_load(&options, nullptr), DSPARK_ERROR_PARAMETER, "engine is NULL");
}

TEST_F(CAbi, BadRequestsAreOneCodeAndOneLine) {
  Load();
  const auto ask = [&](auto change) {
    dspark_request request = Asking(prompt_);
    change(request);
    return Try(request);
  };
  const std::vector<int32_t> outside{40, 9999}, endless(600, 40);
  const char* const stops[] = {"x", nullptr, ""};
  const auto prompt = [](const std::vector<int32_t>& ids) {
    return [&ids](auto& r) { r.prompt = ids.data(), r.prompt_tokens = ids.size(); };
  };
  const int32_t bad = DSPARK_ERROR_PARAMETER;
  ExpectError(ask([](auto& r) { r.prompt_tokens = 0; }), bad, "prompt has no tokens");
  ExpectError(ask([](auto& r) { r.prompt = nullptr; }), bad, "prompt is NULL");
  ExpectError(ask([](auto& r) { r.prompt_tokens = SIZE_MAX; }), bad, "at most");
  ExpectError(ask(prompt(outside)), bad, "prompt token 1 is 9999");
  ExpectError(ask(prompt(endless)), bad, "600 tokens");
  ExpectError(ask([](auto& r) { r.max_tokens = 0; }), bad, "max_tokens is 0");
  ExpectError(ask([](auto& r) { r.temperature = std::numeric_limits<float>::quiet_NaN(); }), bad,
              "temperature");
  ExpectError(ask([](auto& r) { r.top_p = 2; }), bad, "top_p");
  ExpectError(ask([](auto& r) { r.seed = -2; }), bad, "seed is -2");
  ExpectError(ask([](auto& r) { r.top_logprobs = 1 << 20; }), bad, "top_logprobs");
  ExpectError(ask([](auto& r) { r.top_logprobs = -2; }), bad, "top_logprobs is -2");
  ExpectError(ask([&](auto& r) { r.stop = stops, r.stops = 2; }), bad, "a stop string is NULL");
  ExpectError(ask([&](auto& r) { r.stop = stops + 2, r.stops = 1; }), bad, "a stop string is empty");
  ExpectError(ask([](auto& r) { r.stops = 1; }), bad, "stop is NULL and its count 1");
  ExpectError(ask([](auto& r) { r.logit_biases = 1; }), bad, "logit_bias is NULL");
  ExpectError(ask([](auto& r) { r.stop_token_count = 2; }), bad, "stop_tokens is NULL");
  const auto schema = [](const char* text) {
    return [text](auto& r) { r.format = DSPARK_FORMAT_JSON_SCHEMA, r.json_schema = text; };
  };
  ExpectError(ask([](auto& r) { r.format = 3; }), bad, "format is 3; it may be 0 to 2");
  ExpectError(ask(schema(nullptr)), bad, "json_schema is NULL and format 2");
  ExpectError(ask([](auto& r) { r.json_schema = "{}"; }), bad, "json_schema is given and format 0");
  ExpectError(ask(schema("{\"type\": ")), bad, "json_schema is no JSON");
  ExpectError(ask(schema(R"({"properties": {"a": {"not": {}}}})")), bad,
              "json_schema: #/properties/a: the keyword \"not\"");
  ExpectError(ask([](auto& r) { r.size = sizeof r + 1; }), DSPARK_ERROR_VERSION, "dspark_request");
  EXPECT_EQ(dspark_step(engine_), 0) << "a refused request changes nothing";
}

TEST_F(CAbi, NullsAndWrongHandlesAreFoundOut) {
  Load();
  const dspark_request request = Asking(prompt_);
  const dspark_request_id id = Submit(request);
  dspark_request_id other = 0;
  dspark_event event;
  dspark_timings timings;
  const int32_t bad = DSPARK_ERROR_PARAMETER;
  ExpectError(dspark_submit(engine_, nullptr, &other), bad, "request is NULL");
  ExpectError(dspark_submit(engine_, &request, nullptr), bad, "id is NULL");
  ExpectError(dspark_poll(engine_, id, nullptr, sizeof event), bad, "event is NULL");
  ExpectError(dspark_poll(engine_, id, &event, sizeof event + 1), DSPARK_ERROR_VERSION, "dspark_event");
  ExpectError(dspark_get_info(engine_, nullptr, sizeof(dspark_info)), bad, "dspark_info is NULL");
  ExpectError(dspark_tokenize(engine_, nullptr, 1, nullptr, 0, 0, 0), bad, "text is NULL");
  ExpectError(dspark_tokenize(engine_, "a", 1, nullptr, 1, 0, 0), bad, "tokens is NULL");
  ExpectError(dspark_detokenize(engine_, nullptr, 1, nullptr, 0, 0), bad, "tokens is NULL");
  ExpectError(dspark_render_chat(engine_, nullptr, 1, 1, 1, nullptr, 0), bad, "messages is NULL");
  const dspark_message halves[] = {{"user", nullptr}};
  ExpectError(dspark_render_chat(engine_, halves, 1, 1, 1, nullptr, 0), bad, "role or content");
  ExpectError(dspark_poll(engine_, id + 1, &event, sizeof event), DSPARK_ERROR_REQUEST, "no request 2");
  ExpectError(dspark_cancel(engine_, -5), DSPARK_ERROR_REQUEST, "no request -5");
  ExpectError(dspark_release(engine_, 0), DSPARK_ERROR_REQUEST, "no request 0");
  ExpectError(dspark_get_timings(engine_, 9, &timings, sizeof timings), DSPARK_ERROR_REQUEST, "9");
  ExpectError(dspark_get_timings(engine_, id, &timings, sizeof timings), DSPARK_ERROR_RUNNING, "not ended");
  ExpectError(dspark_step(nullptr), bad, "engine is NULL");
  ExpectError(dspark_free(nullptr), bad, "engine is NULL");
  int here = 0;
  ExpectError(dspark_step(reinterpret_cast<dspark_engine*>(&here)), DSPARK_ERROR_ENGINE, "no such engine");

  dspark_engine* const freed = engine_;
  EXPECT_EQ(dspark_free(engine_), DSPARK_OK);
  engine_ = nullptr;
  Load();  // perhaps in the same memory
  ExpectError(dspark_step(freed), DSPARK_ERROR_ENGINE, "freed");
  ExpectError(dspark_free(freed), DSPARK_ERROR_ENGINE, "freed");
  ExpectError(dspark_poll(freed, id, &event, sizeof event), DSPARK_ERROR_ENGINE, "freed");
}

TEST_F(CAbi, RepliesAreTheEnginesOwn) {
  TinyModel peer;
  Load();
  const std::vector<std::vector<int32_t>> prompts{prompt_, {50, 51, 52}, {90}, {60, 61, 60, 61, 60}};
  std::map<dspark_request_id, AbiReply> replies;
  std::vector<dspark_request_id> ids;
  for (size_t i = 0; i < prompts.size(); ++i) {
    dspark_request request = Asking(prompts[i]);
    if (i % 2) request.temperature = 0.8f, request.seed = 5, request.reproducible = 1;
    ids.push_back(Submit(request));
  }
  int32_t live = int32_t(ids.size());
  while (live > 0) {
    live = dspark_step(engine_);
    for (const dspark_request_id id : ids) Poll(id, &replies[id]);
    int32_t running = 0;
    for (const auto& [id, reply] : replies) running += reply.finish == DSPARK_FINISH_NONE;
    EXPECT_EQ(live, running);
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request request;
    request.prompt = prompts[i];
    request.sampling.temperature = 0;
    request.seed = 5;
    request.max_tokens = 24;
    request.ignore_eos = true;
    if (i % 2) request.sampling.temperature = 0.8f;
    const Reply plain = Plain(peer, request);
    const AbiReply& reply = replies[ids[i]];
    EXPECT_EQ(reply.tokens, plain.tokens);
    EXPECT_EQ(reply.text, plain.text);
    EXPECT_EQ(reply.finish, DSPARK_FINISH_LENGTH);
    dspark_timings timings;
    ASSERT_EQ(dspark_get_timings(engine_, ids[i], &timings, sizeof timings), DSPARK_OK);
    EXPECT_EQ(timings.size, sizeof timings);
    EXPECT_EQ(timings.prompt_tokens, int32_t(prompts[i].size()));
    EXPECT_EQ(timings.completion_tokens, 24);
    EXPECT_EQ(timings.committed, 23);
    EXPECT_GT(timings.decode_ms, 0);
    EXPECT_EQ(dspark_release(engine_, ids[i]), DSPARK_OK);
  }
  EXPECT_EQ(dspark_step(engine_), 0);
}

TEST_F(CAbi, ParametersReachTheReply) {
  Load();
  const AbiReply plain = [&] {
    AbiReply reply;
    const dspark_request_id id = Submit(Asking(prompt_));
    StepToEnd();
    Poll(id, &reply);
    return reply;
  }();
  ASSERT_EQ(plain.tokens.size(), 24u);
  dspark_request request = Asking(prompt_);
  request.stop_tokens = &plain.tokens[5];
  request.stop_token_count = 1;
  const dspark_logit_bias never{plain.tokens[0], -100};
  dspark_request biased = Asking(prompt_);
  biased.logit_bias = &never;
  biased.logit_biases = 1;
  biased.top_logprobs = 3;
  const dspark_request_id stopped = Submit(request), other = Submit(biased);
  StepToEnd();
  AbiReply reply;
  Poll(stopped, &reply);
  EXPECT_EQ(reply.finish, DSPARK_FINISH_STOP);
  EXPECT_LE(reply.tokens.size(), 6u);
  dspark_event event;
  ASSERT_EQ(dspark_poll(engine_, other, &event, sizeof event), 1);
  EXPECT_NE(event.token, plain.tokens[0]);
  ASSERT_EQ(event.top_count, 3u);
  EXPECT_EQ(event.top[0].token, plain.tokens[0]) << "log-probabilities are the model's, before the bias";
  EXPECT_GT(event.top[0].logprob, event.top[1].logprob);
  EXPECT_LT(event.logprob, 0);
}

TEST_F(CAbi, RepliesKeepToTheFormThatIsAskedFor) {
  Load();
  const char* const schema = R"({"type": "object", "required": ["kind", "open"],
      "properties": {"kind": {"enum": ["river", "rivers", "road"]}, "open": {"const": true}}})";
  dspark_request request = Asking(prompt_, 100);
  request.format = DSPARK_FORMAT_JSON_SCHEMA;
  request.json_schema = schema;
  const dspark_request_id first = Submit(request);
  request.temperature = 1.5f;
  const dspark_request_id second = Submit(request);
  request.format = DSPARK_FORMAT_JSON_OBJECT;
  request.json_schema = nullptr;
  const dspark_request_id any = Submit(request);
  StepToEnd();
  for (const dspark_request_id id : {first, second}) {
    AbiReply reply;
    Poll(id, &reply);
    EXPECT_EQ(reply.finish, DSPARK_FINISH_STOP) << "the reply ends with its object";
    const auto value = nlohmann::json::parse(reply.text, nullptr, false);
    ASSERT_TRUE(value.is_object()) << reply.text;
    EXPECT_THAT(value.value("kind", ""), testing::AnyOf("river", "rivers", "road"));
    EXPECT_EQ(value["open"], true);
    dspark_timings timings;
    ASSERT_EQ(dspark_get_timings(engine_, id, &timings, sizeof timings), DSPARK_OK);
    EXPECT_GT(timings.accepted, 3) << "what is forced was drafted";
  }
  AbiReply object;
  Poll(any, &object);
  EXPECT_THAT(object.text, testing::StartsWith("{"));
}

TEST_F(CAbi, CancelAndReleaseEndARequest) {
  Load();
  const dspark_request_id cancelled = Submit(Asking(prompt_, 400)), released = Submit(Asking(prompt_, 400)),
                          kept = Submit(Asking(prompt_, 30));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(dspark_step(engine_), 3);
  EXPECT_EQ(dspark_cancel(engine_, cancelled), DSPARK_OK);
  EXPECT_EQ(dspark_release(engine_, released), DSPARK_OK);
  EXPECT_EQ(dspark_step(engine_), 1) << "both have left within a step";
  dspark_event event;
  ExpectError(dspark_poll(engine_, released, &event, sizeof event), DSPARK_ERROR_REQUEST, "released");
  ExpectError(dspark_release(engine_, released), DSPARK_ERROR_REQUEST, "released");
  AbiReply reply;
  Poll(cancelled, &reply);
  EXPECT_EQ(reply.finish, DSPARK_FINISH_CANCELLED);
  EXPECT_LT(reply.tokens.size(), 40u);
  StepToEnd();
  EXPECT_EQ(dspark_cancel(engine_, kept), DSPARK_OK) << "it has ended: stays as it is";
  AbiReply whole;
  Poll(kept, &whole);
  EXPECT_EQ(whole.finish, DSPARK_FINISH_LENGTH);
  EXPECT_EQ(whole.tokens.size(), 30u);
  EXPECT_EQ(dspark_poll(engine_, kept, &event, sizeof event), 0) << "the last event was handed out";
}

TEST_F(CAbi, TextAndTokensAsRunMakesThem) {
  Load();
  const dspark_message messages[] = {{"system", "be kind"}, {"user", "the cat"}};
  const std::string wanted =
      "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n";
  ASSERT_EQ(dspark_render_chat(engine_, messages, 2, 1, 1, nullptr, 0), int64_t(wanted.size()));
  std::string chat(wanted.size(), 'x');
  dspark_render_chat(engine_, messages, 2, 1, 1, chat.data(), chat.size() + 1);
  EXPECT_EQ(chat, wanted);
  char cut[8];
  EXPECT_EQ(dspark_render_chat(engine_, messages, 2, 1, 1, cut, sizeof cut), int64_t(wanted.size()));
  EXPECT_STREQ(cut, "<|im_st");

  TinyModel peer;
  const std::vector<int32_t> ids = peer.files.tokenizer->Encode(wanted, true);
  std::vector<int32_t> got(ids.size() + 1, -7);
  EXPECT_EQ(dspark_tokenize(engine_, chat.data(), chat.size(), got.data(), 2, 0, 1), int64_t(ids.size()));
  EXPECT_EQ(got[2], -7) << "no more than the capacity";
  EXPECT_EQ(dspark_tokenize(engine_, chat.data(), chat.size(), got.data(), ids.size(), 0, 1),
            int64_t(ids.size()));
  EXPECT_EQ(got.back(), -7);
  got.pop_back();
  EXPECT_EQ(got, ids);
  EXPECT_GT(dspark_tokenize(engine_, chat.data(), chat.size(), nullptr, 0, 0, 0), int64_t(ids.size()))
      << "special tokens as plain text";

  ASSERT_EQ(dspark_detokenize(engine_, ids.data(), ids.size(), nullptr, 0, 0), int64_t(wanted.size()));
  std::string back(wanted.size(), 'x');
  dspark_detokenize(engine_, ids.data(), ids.size(), back.data(), back.size() + 1, 0);
  EXPECT_EQ(back, wanted);
  EXPECT_LT(dspark_detokenize(engine_, ids.data(), ids.size(), nullptr, 0, 1), int64_t(wanted.size()));

  dspark_info info;
  ASSERT_EQ(dspark_get_info(engine_, &info, sizeof info), DSPARK_OK);
  EXPECT_EQ(info.vocab, peer.vocab());
  EXPECT_EQ(info.context, 512);
  EXPECT_EQ(info.threads, 2);
  EXPECT_EQ(info.has_chat, 1);
  EXPECT_EQ(info.has_drafter, 1);
}

// A program made for an older, shorter header: what it does not know keeps its default, and nothing is
// written behind what it has.
TEST_F(CAbi, ShorterStructsOfOlderHeaders) {
  Load();
  dspark_request request = Asking(prompt_, 8);
  request.top_logprobs = -99;  // behind the end of that header's struct
  request.size = offsetof(dspark_request, top_logprobs);
  const dspark_request_id id = Submit(request);
  StepToEnd();
  struct {
    size_t size;
    int32_t prompt_tokens, guard;
  } old{0, 0, 1234};
  auto* timings = reinterpret_cast<dspark_timings*>(&old);
  ASSERT_EQ(dspark_get_timings(engine_, id, timings, offsetof(dspark_timings, cached_tokens)), DSPARK_OK);
  EXPECT_EQ(old.size, offsetof(dspark_timings, cached_tokens));
  EXPECT_EQ(old.prompt_tokens, int32_t(prompt_.size()));
  EXPECT_EQ(old.guard, 1234);
}

// One thread steps without a pause; the others submit, poll, cancel and release, and none is kept out.
TEST_F(CAbi, ManyThreadsShareAnEngine) {
  Load();
  std::atomic<bool> done = false;
  std::thread stepper([&] {
    while (!done) EXPECT_GE(dspark_step(engine_), 0);
  });
  std::vector<AbiReply> replies(3);
  std::vector<std::thread> askers;
  for (AbiReply& reply : replies) {
    askers.emplace_back([&] {
      const dspark_request_id extra = Submit(Asking(prompt_, 400)), id = Submit(Asking(prompt_));
      while (reply.finish == DSPARK_FINISH_NONE) Poll(id, &reply);
      EXPECT_EQ(dspark_cancel(engine_, extra), DSPARK_OK);
      EXPECT_EQ(dspark_release(engine_, extra), DSPARK_OK);
      EXPECT_EQ(dspark_release(engine_, id), DSPARK_OK);
    });
  }
  for (std::thread& asker : askers) asker.join();
  done = true;
  stepper.join();
  EXPECT_THAT(replies[0].text, Not(IsEmpty()));
  for (const AbiReply& reply : replies) EXPECT_EQ(reply.tokens, replies[0].tokens);
}

TEST_F(CAbi, FreeWhileAnotherThreadSteps) {
  Load();
  Submit(Asking(prompt_, 500));
  dspark_engine* const engine = std::exchange(engine_, nullptr);
  std::atomic<int> steps = 0;
  std::thread stepper([&] {
    while (dspark_step(engine) >= 0) ++steps;
    ExpectError(dspark_step(engine), DSPARK_ERROR_ENGINE, "freed");
  });
  while (steps < 3) std::this_thread::yield();
  EXPECT_EQ(dspark_free(engine), DSPARK_OK);
  stepper.join();
}

TEST_F(CAbi, ErrorsAreTheThreadsOwn) {
  ExpectError(dspark_step(nullptr), DSPARK_ERROR_PARAMETER, "engine is NULL");
  std::thread([] { EXPECT_STREQ(dspark_last_error(), ""); }).join();
  EXPECT_THAT(dspark_last_error(), HasSubstr("engine is NULL"));
}

class CAbiWithoutTokenizer : public CAbi {
 protected:
  CAbiWithoutTokenizer() : CAbi({.tokenizer = false}) {}
};

TEST_F(CAbiWithoutTokenizer, TakesAndGivesIds) {
  Load();
  const dspark_message message{"user", "x"};
  const int32_t code = DSPARK_ERROR_UNSUPPORTED;
  dspark_request form = Asking(prompt_);
  form.format = DSPARK_FORMAT_JSON_OBJECT;
  ExpectError(Try(form), code, "no tokenizer");
  ExpectError(dspark_tokenize(engine_, "x", 1, nullptr, 0, 0, 0), code, "no tokenizer");
  ExpectError(dspark_detokenize(engine_, prompt_.data(), 1, nullptr, 0, 0), code, "no tokenizer");
  ExpectError(dspark_render_chat(engine_, &message, 1, 1, 1, nullptr, 0), code, "no tokenizer");
  const dspark_request_id id = Submit(Asking(prompt_));
  StepToEnd();
  AbiReply reply;
  Poll(id, &reply);
  EXPECT_EQ(reply.tokens.size(), 24u);
  EXPECT_EQ(reply.text, "");
}

}  // namespace
}  // namespace dspark::test

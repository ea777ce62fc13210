// dspark for C++17 and later: dspark.h with strings, vectors and ownership. Header-only, so that nothing but
// C's types crosses the library's border: any compiler and standard library of the caller's will do.
//
//   auto engine = dspark::Engine::Load({.model = "model.gguf"});
//   if (!engine) return Complain(engine.error().text);
//   auto prompt = engine->ChatPrompt({{"user", "Why is the sky blue?"}});
//   auto id = engine->Submit({.prompt = *prompt});
//   while (engine->Step().value() > 0) { ... engine->Poll(*id) ... }
//
// Threads, steps and errors are as dspark.h states them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dspark/dspark.h"
#include "dspark/result.h"

namespace dspark {
inline namespace abi0 {

// As dspark_options; an empty string is the default.
struct Options {
  std::string model = {}, draft = {}, draft_weights = {}, policy = {}, accept = {};
  std::string weights = {}, kv = {}, isa = {};
  int ctx = 0, threads = 0, parallel = 1, kv_tokens = 0;
  bool no_lookup = false, keep_costs = true;
};

// As dspark_request.
struct Request {
  std::vector<int32_t> prompt = {};
  int max_tokens = 512;
  float temperature = 0;
  int top_k = 0;
  float top_p = 1, min_p = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int64_t seed = -1;
  std::vector<dspark_logit_bias> logit_bias = {};
  std::vector<std::string> stop = {};
  std::vector<int32_t> stop_tokens = {};
  bool ignore_eos = false;
  int top_logprobs = -1;
  bool speculate = true, reproducible = false;
  int format = DSPARK_FORMAT_TEXT;
  std::string json_schema = {};
};

// As dspark_event, with copies of its own.
struct Event {
  int32_t token = -1;
  bool drafted = false;
  int finish = DSPARK_FINISH_NONE;
  float logprob = 0;
  std::string text = {};
  std::vector<dspark_logprob> top = {};
  std::string error = {};
};

struct Message {
  std::string role, content;
};

using RequestId = dspark_request_id;

// A loaded model. Moving leaves an engine behind that has none.
class Engine {
 public:
  static Result<Engine> Load(const Options& options = {}) {
    dspark_options o;
    dspark_options_init(&o, sizeof o);
    o.model = OrNull(options.model);
    o.draft = OrNull(options.draft);
    o.draft_weights = OrNull(options.draft_weights);
    o.policy = OrNull(options.policy);
    o.accept = OrNull(options.accept);
    o.weights = OrNull(options.weights);
    o.kv = OrNull(options.kv);
    o.isa = OrNull(options.isa);
    o.ctx = options.ctx;
    o.threads = options.threads;
    o.parallel = options.parallel;
    o.kv_tokens = options.kv_tokens;
    o.no_lookup = options.no_lookup;
    o.keep_costs = options.keep_costs;
    dspark_engine* handle = nullptr;
    if (const int32_t code = dspark_load(&o, &handle); code < 0) return LastError(code);
    return Engine(handle);
  }
  Engine(Engine&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Engine& operator=(Engine&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Engine() {
    if (handle_ != nullptr) dspark_free(handle_);
  }

  // For functions of dspark.h. The engine stays the owner.
  dspark_engine* handle() const { return handle_; }

  Result<dspark_info> Info() const {
    dspark_info info;
    if (const int32_t code = dspark_get_info(handle_, &info, sizeof info); code < 0) return LastError(code);
    return info;
  }

  Result<std::vector<int32_t>> Tokenize(std::string_view text, bool add_bos, bool parse_special) const {
    std::vector<int32_t> ids(text.size() +
                             1);  // a token is a byte at least, and perhaps one at the beginning
    const int64_t count =
        dspark_tokenize(handle_, text.data(), text.size(), ids.data(), ids.size(), add_bos, parse_special);
    if (count < 0) return LastError(count);
    ids.resize(size_t(count));  // zeros behind, if it was more after all
    if (count > int64_t(text.size()) + 1) {
      dspark_tokenize(handle_, text.data(), text.size(), ids.data(), ids.size(), add_bos, parse_special);
    }
    return ids;
  }

  Result<std::string> Detokenize(const std::vector<int32_t>& ids, bool skip_special) const {
    return Text([&](char* text, size_t capacity) {
      return dspark_detokenize(handle_, ids.data(), ids.size(), text, capacity, skip_special);
    });
  }

  Result<std::string> RenderChat(const std::vector<Message>& messages, bool add_assistant = true,
                                 bool think = true) const {
    std::vector<dspark_message> turns;
    for (const Message& m : messages) turns.push_back({m.role.c_str(), m.content.c_str()});
    return Text([&](char* text, size_t capacity) {
      return dspark_render_chat(handle_, turns.data(), turns.size(), add_assistant, think, text, capacity);
    });
  }

  // The prompt of a conversation, as `dspark run` makes it.
  Result<std::vector<int32_t>> ChatPrompt(const std::vector<Message>& messages, bool think = true) const {
    const Result<std::string> text = RenderChat(messages, true, think);
    if (!text) return text.error();
    return Tokenize(*text, false, true);
  }

  Result<RequestId> Submit(const Request& request) {
    std::vector<const char*> stop;
    for (const std::string& s : request.stop) stop.push_back(s.c_str());
    dspark_request r;
    dspark_request_init(&r, sizeof r);
    r.prompt = request.prompt.data();
    r.prompt_tokens = request.prompt.size();
    r.max_tokens = request.max_tokens;
    r.temperature = request.temperature;
    r.top_k = request.top_k;
    r.top_p = request.top_p;
    r.min_p = request.min_p;
    r.repetition_penalty = request.repetition_penalty;
    r.presence_penalty = request.presence_penalty;
    r.frequency_penalty = request.frequency_penalty;
    r.seed = request.seed;
    r.logit_bias = request.logit_bias.data();
    r.logit_biases = request.logit_bias.size();
    r.stop = stop.data();
    r.stops = stop.size();
    r.stop_tokens = request.stop_tokens.data();
    r.stop_token_count = request.stop_tokens.size();
    r.ignore_eos = request.ignore_eos;
    r.top_logprobs = request.top_logprobs;
    r.speculate = request.speculate;
    r.reproducible = request.reproducible;
    r.format = request.format;
    r.json_schema = OrNull(request.json_schema);
    RequestId id = 0;
    if (const int32_t code = dspark_submit(handle_, &r, &id); code < 0) return LastError(code);
    return id;
  }

  // Requests that still run or wait.
  Result<int> Step() {
    const int32_t live = dspark_step(handle_);
    if (live < 0) return LastError(live);
    return int(live);
  }

  // Nothing: no event now, or the last one was taken.
  Result<std::optional<Event>> Poll(RequestId id) {
    dspark_event e;
    const int32_t code = dspark_poll(handle_, id, &e, sizeof e);
    if (code < 0) return LastError(code);
    if (code == 0) return std::optional<Event>();
    return std::optional<Event>(
        Event{e.token, e.drafted != 0, e.finish, e.logprob, std::string(e.text, e.text_bytes),
              std::vector<dspark_logprob>(e.top, e.top + e.top_count), e.error != nullptr ? e.error : ""});
  }

  Result<void> Cancel(RequestId id) { return Done(dspark_cancel(handle_, id)); }
  Result<void> Release(RequestId id) { return Done(dspark_release(handle_, id)); }

  Result<dspark_timings> Timings(RequestId id) const {
    dspark_timings timings;
    const int32_t code = dspark_get_timings(handle_, id, &timings, sizeof timings);
    if (code < 0) return LastError(code);
    return timings;
  }

 private:
  explicit Engine(dspark_engine* handle) : handle_(handle) {}

  static const char* OrNull(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }
  static Result<void> Done(int32_t code) { return code < 0 ? Result<void>(LastError(code)) : Result<void>(); }

  // What `write` (text, capacity → its bytes) writes: asked for the size first.
  template <class Write>
  static Result<std::string> Text(Write write) {
    const int64_t bytes = write(nullptr, 0);
    if (bytes < 0) return LastError(bytes);
    std::string text(size_t(bytes), 0);
    if (const int64_t code = write(text.data(), text.size() + 1); code < 0) return LastError(code);
    return text;
  }

  dspark_engine* handle_ = nullptr;
};

}  // namespace abi0
}  // namespace dspark

// The C ABI: checks what comes in, turns errors into codes with a line, and lets no exception out.
#include <dspark/dspark.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <random>
#include <system_error>

#include "api/shared_engine.h"
#include "core/json_depth.h"
#include "load/chat_template.h"
#include "load/raw_prompt.h"

struct dspark_engine;  // never defined: a handle is a number

namespace dspark {
namespace {

constexpr size_t kLongestPrompt = size_t{1} << 20;  // tokens: no context is longer

thread_local std::string last_error;

int32_t Fail(int32_t code, std::string_view text) noexcept {
  try {
    last_error = text;
  } catch (...) {  // no memory even for the message: the code says it
    last_error.clear();
  }
  return code;
}

int32_t Fail(int32_t code, const Error& error) noexcept { return Fail(code, error.text); }

// What `body` returns, or the code of what it throws.
template <class Body>
auto Guarded(Body body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Fail(DSPARK_ERROR_MEMORY, "out of memory; free something and try again");
  } catch (const std::exception& error) {
    return Fail(DSPARK_ERROR_INTERNAL, error.what());
  } catch (...) {
    return Fail(DSPARK_ERROR_INTERNAL, "an unknown exception");
  }
}

// The engines there are, by handle. C has no ownership to say who may still use an engine: numbers that are
// never given twice turn a use after free into an error, and an engine that is freed lives on until the calls
// that are under way have returned.
class EngineTable {
 public:
  dspark_engine* Add(std::shared_ptr<SharedEngine> engine) {
    const std::lock_guard lock(mutex_);
    engines_.emplace(++last_, std::move(engine));
    return reinterpret_cast<dspark_engine*>(last_);  // NOLINT: never followed
  }
  std::shared_ptr<SharedEngine> Find(const dspark_engine* handle) {
    const std::lock_guard lock(mutex_);
    const auto found = engines_.find(reinterpret_cast<uintptr_t>(handle));
    return found == engines_.end() ? nullptr : found->second;
  }
  std::shared_ptr<SharedEngine> Take(const dspark_engine* handle) {
    const std::lock_guard lock(mutex_);
    auto node = engines_.extract(reinterpret_cast<uintptr_t>(handle));
    return node.empty() ? nullptr : std::move(node.mapped());
  }

 private:
  std::mutex mutex_;
  std::map<uintptr_t, std::shared_ptr<SharedEngine>> engines_;
  uintptr_t last_ = 0;
};

// Never destroyed: a program's threads may call while it exits.
EngineTable& Engines() {
  static auto* const engines = new EngineTable;
  return *engines;
}

int32_t NoEngine(const dspark_engine* handle) {
  if (handle == nullptr) return Fail(DSPARK_ERROR_PARAMETER, "engine is NULL; pass what dspark_load gave");
  return Fail(DSPARK_ERROR_ENGINE,
              "there is no such engine: it was freed, or is not what dspark_load gave; load it again");
}

int32_t NoRequest(dspark_request_id id) {
  return Fail(DSPARK_ERROR_REQUEST,
              fmt::format("there is no request {}: it was released, or is not what dspark_submit gave", id));
}

int32_t IsNull(const char* what) {
  return Fail(DSPARK_ERROR_PARAMETER, fmt::format("{} is NULL; pass its address", what));
}

// Runs `body` on the engine behind a handle.
template <class Body>
auto WithEngine(const dspark_engine* handle, Body body) noexcept
    -> decltype(body(std::declval<SharedEngine&>())) {
  return Guarded([&]() -> decltype(body(std::declval<SharedEngine&>())) {
    const std::shared_ptr<SharedEngine> engine = Engines().Find(handle);
    return engine ? body(*engine) : NoEngine(handle);
  });
}

int32_t WrongSize(const char* name, size_t size, size_t known) {
  return Fail(
      DSPARK_ERROR_VERSION,
      fmt::format("{} has size {} and this library, {}, knows {} bytes of it; initialise it with sizeof, "
                  "or use a newer libdspark",
                  name, size, DSPARK_VERSION, known));
}

bool SizeFits(size_t size, size_t known) { return size >= sizeof(size_t) && size <= known; }

// A caller's struct, whose header may be older than ours: what it lacks keeps the default.
template <class T>
int32_t ReadStruct(const T* in, const char* name, T* out) {
  size_t size = 0;
  std::memcpy(&size, in, sizeof size);
  if (!SizeFits(size, sizeof(T))) return WrongSize(name, size, sizeof(T));
  std::memcpy(static_cast<void*>(out), in, size);
  return DSPARK_OK;
}

template <class T>
int32_t WriteStruct(T value, const char* name, size_t size, T* out) {
  if (out == nullptr) return IsNull(name);
  if (!SizeFits(size, sizeof(T))) return WrongSize(name, size, sizeof(T));
  value.size = size;
  std::memcpy(static_cast<void*>(out), &value, size);
  return DSPARK_OK;
}

// The defaults of a caller's struct, whose header may be older or newer than ours.
template <class T>
void InitStruct(const T& defaults, size_t size, T* out) {
  if (out == nullptr) return;
  std::memset(static_cast<void*>(out), 0, size);
  std::memcpy(static_cast<void*>(out), &defaults, std::min(size, sizeof defaults));
  if (size >= sizeof size) out->size = size;
}

// As snprintf: all that fits, and a NUL; returns the text's whole length.
int64_t WriteText(std::string_view text, char* out, size_t capacity) {
  if (capacity > 0) {
    const size_t bytes = std::min(text.size(), capacity - 1);
    std::memcpy(out, text.data(), bytes);
    out[bytes] = 0;
  }
  return int64_t(text.size());
}

constexpr dspark_options DefaultOptions() {
  dspark_options options{};
  options.size = sizeof options;
  options.parallel = 1;
  options.keep_costs = 1;
  return options;
}

constexpr dspark_request DefaultRequest() {
  dspark_request request{};
  request.size = sizeof request;
  request.max_tokens = 512;
  request.top_p = 1;
  request.repetition_penalty = 1;
  request.seed = -1;
  request.top_logprobs = -1;
  request.speculate = 1;
  return request;
}

void SetText(const char* text, std::string* option) {
  if (text != nullptr) *option = text;
}

SessionOptions ToSessionOptions(const dspark_options& o) {
  SessionOptions options;
  SetText(o.model, &options.model);
  SetText(o.draft, &options.draft.draft);
  SetText(o.draft_weights, &options.draft.weights);
  SetText(o.policy, &options.draft.policy);
  SetText(o.accept, &options.draft.accept);
  SetText(o.weights, &options.weights);
  SetText(o.kv, &options.kv);
  SetText(o.isa, &options.isa);
  options.context = o.ctx;
  options.threads = o.threads;
  options.sequences = o.parallel;
  options.kv_tokens = o.kv_tokens;
  options.draft.no_lookup = o.no_lookup != 0;
  options.keep_costs = o.keep_costs != 0;
  return options;
}

Status InRange(const char* name, int value, int low, int high, bool zero_too) {
  if ((zero_too && value == 0) || (value >= low && value <= high)) return {};
  return MakeError("{} is {}; it may be {}{} to {}", name, value, zero_too ? "0 or " : "", low, high);
}

// What `parsed` complains of, with the option's name before it.
template <class Parsed>
Status Named(const char* option, const Parsed& parsed) {
  if (parsed.ok()) return {};
  return MakeError("{} {}", option, parsed.error().text);
}

// What is wrong whatever the model is.
Status CheckOptions(const SessionOptions& o) {
  DSPARK_RETURN_IF_ERROR(InRange("ctx", o.context, 16, 1 << 20, true));
  DSPARK_RETURN_IF_ERROR(InRange("threads", o.threads, 1, 512, true));
  DSPARK_RETURN_IF_ERROR(InRange("parallel", o.sequences, 1, 1024, false));
  DSPARK_RETURN_IF_ERROR(InRange("kv_tokens", o.kv_tokens, 16, 1 << 30, true));
  DSPARK_RETURN_IF_ERROR(Named("isa", ResolveIsa(o.isa)));
  DSPARK_RETURN_IF_ERROR(Named("kv", ResolveKv(o.kv)));
  DSPARK_RETURN_IF_ERROR(Named("weights", ResolveWeights(o.weights)));
  DSPARK_RETURN_IF_ERROR(Named("draft_weights", ResolveWeights(o.draft.weights)));
  DSPARK_RETURN_IF_ERROR(Named("policy", CheckPolicy(o.draft.policy)));
  if (auto engine = ChooseEngineOptions(o.draft, o.sequences); !engine) return engine.error();
  return CheckDraftFlags(o.draft);
}

// A list of the caller's. Error: it is not there, though its count says so.
template <class T>
Result<std::span<const T>> List(const T* items, size_t count, const char* name) {
  if (count > kLongestPrompt)
    return MakeError("{} has {} items; at most {} are taken", name, count, kLongestPrompt);
  if (items == nullptr && count > 0) return MakeError("{} is NULL and its count {}", name, count);
  return std::span<const T>(items, count);
}

template <class T, class List>
std::vector<T> Copy(const List& list) {
  return std::vector<T>(list.begin(), list.end());
}

Result<Request> ToRequest(const dspark_request& r) {
  DSPARK_ASSIGN_OR_RETURN(const auto prompt, List(r.prompt, r.prompt_tokens, "prompt"));
  DSPARK_ASSIGN_OR_RETURN(const auto stop, List(r.stop, r.stops, "stop"));
  DSPARK_ASSIGN_OR_RETURN(const auto stop_tokens, List(r.stop_tokens, r.stop_token_count, "stop_tokens"));
  DSPARK_ASSIGN_OR_RETURN(const auto bias, List(r.logit_bias, r.logit_biases, "logit_bias"));
  if (std::count(stop.begin(), stop.end(), nullptr) > 0)
    return MakeError("a stop string is NULL; leave it out");
  if (r.seed < -1) return MakeError("seed is {}; it may be -1 (any), or 0 and more", r.seed);
  if (r.top_logprobs < -1) return MakeError("top_logprobs is {}; it may be -1 or more", r.top_logprobs);
  Request request;
  request.prompt = Copy<int32_t>(prompt);
  request.sampling = {.temperature = r.temperature,
                      .top_k = r.top_k,
                      .top_p = r.top_p,
                      .min_p = r.min_p,
                      .repetition_penalty = r.repetition_penalty,
                      .presence_penalty = r.presence_penalty,
                      .frequency_penalty = r.frequency_penalty};
  for (const dspark_logit_bias& b : bias) request.sampling.logit_bias.push_back({b.token, b.bias});
  request.seed = r.seed >= 0 ? uint64_t(r.seed) : std::random_device{}();
  request.max_tokens = r.max_tokens;
  request.ignore_eos = r.ignore_eos != 0;
  request.stop_tokens = Copy<int32_t>(stop_tokens);
  request.stop = Copy<std::string>(stop);
  request.top_logprobs = r.top_logprobs;
  request.speculate = r.speculate != 0;
  request.reproducible = r.reproducible != 0;
  return request;
}

int32_t NoTokenizer(const SharedEngine& engine) {
  return Fail(DSPARK_ERROR_UNSUPPORTED, fmt::format("{}: the model has no tokenizer; pass and take token ids",
                                                    engine.session().model_path));
}

Result<ReplyForm> ToReplyForm(const dspark_request& r) {
  DSPARK_RETURN_IF_ERROR(InRange("format", r.format, DSPARK_FORMAT_TEXT, DSPARK_FORMAT_JSON_SCHEMA, false));
  ReplyForm form;
  form.content = ReplyForm::Content(r.format);
  const bool schema = r.format == DSPARK_FORMAT_JSON_SCHEMA;
  if (schema != (r.json_schema != nullptr)) {
    return MakeError("json_schema is {} and format {}; a schema and DSPARK_FORMAT_JSON_SCHEMA go together",
                     schema ? "NULL" : "given", r.format);
  }
  if (!schema) return form;
  if (JsonDepth(r.json_schema) > kMostJsonDepth)
    return MakeError("json_schema is nested more than {} levels deep", kMostJsonDepth);
  form.schema = nlohmann::ordered_json::parse(r.json_schema, nullptr, /*allow_exceptions=*/false);
  if (form.schema.is_discarded()) return MakeError("json_schema is no JSON; check its brackets and commas");
  return form;
}

// The reply's form becomes the request's constraint.
int32_t Constrain(SharedEngine& engine, const dspark_request& given, Request* request) {
  const auto form = ToReplyForm(given);
  if (!form) return Fail(DSPARK_ERROR_PARAMETER, form.error());
  if (given.format == DSPARK_FORMAT_TEXT) return DSPARK_OK;
  if (!engine.session().files.tokenizer) return NoTokenizer(engine);
  auto constraint = engine.Constrain(*form);
  if (!constraint) return Fail(DSPARK_ERROR_PARAMETER, "json_schema: " + constraint.error().text);
  request->constraint = std::move(constraint).value();
  return DSPARK_OK;
}

dspark_event ToEvent(const TokenEvent& e) {
  static_assert(sizeof(TokenLogprob) == sizeof(dspark_logprob) && offsetof(TokenLogprob, logprob) == 4);
  dspark_event event{};
  event.token = e.token;
  event.drafted = e.drafted;
  event.finish = int32_t(e.finish);
  event.logprob = e.logprob.logprob;
  event.text = e.text.c_str();
  event.text_bytes = e.text.size();
  event.top = reinterpret_cast<const dspark_logprob*>(e.top.data());
  event.top_count = e.top.size();
  event.error = e.finish == FinishReason::kError ? e.error.c_str() : nullptr;
  return event;
}

dspark_timings ToTimings(const SequenceStats& s) {
  dspark_timings timings{};
  timings.prompt_tokens = s.prompt_tokens;
  timings.cached_tokens = s.cached_tokens;
  timings.completion_tokens = s.completion_tokens;
  timings.rounds = s.rounds;
  timings.committed = s.committed;
  timings.drafted = s.drafted;
  timings.accepted = s.accepted;
  timings.prompt_ms = s.prompt_ms;
  timings.decode_ms = s.decode_ms;
  timings.draft_ms = s.draft_ms;
  timings.verify_ms = s.verify_ms;
  return timings;
}

static_assert(DSPARK_FORMAT_TEXT == int(ReplyForm::Content::kText) &&
              DSPARK_FORMAT_JSON_OBJECT == int(ReplyForm::Content::kJsonObject) &&
              DSPARK_FORMAT_JSON_SCHEMA == int(ReplyForm::Content::kJsonSchema));
static_assert(DSPARK_FINISH_STOP == int(FinishReason::kStop) &&
              DSPARK_FINISH_LENGTH == int(FinishReason::kLength) &&
              DSPARK_FINISH_CANCELLED == int(FinishReason::kCancelled) &&
              DSPARK_FINISH_ERROR == int(FinishReason::kError));

}  // namespace
}  // namespace dspark

using namespace dspark;  // NOLINT: the functions below are C's, outside of any namespace

extern "C" {

const char* dspark_version() { return DSPARK_VERSION; }

int32_t dspark_abi_version() { return DSPARK_ABI_VERSION; }

const char* dspark_last_error() { return last_error.c_str(); }

const char* dspark_finish_name(int32_t finish) {
  if (finish < DSPARK_FINISH_STOP || finish > DSPARK_FINISH_ERROR) return "";
  return FinishReasonName(FinishReason(finish));
}

void dspark_options_init(dspark_options* options, size_t size) {
  InitStruct(DefaultOptions(), size, options);
}

void dspark_request_init(dspark_request* request, size_t size) {
  InitStruct(DefaultRequest(), size, request);
}

int32_t dspark_load(const dspark_options* options, dspark_engine** engine) {
  return Guarded([&]() -> int32_t {
    if (engine == nullptr) return IsNull("engine");
    *engine = nullptr;
    dspark_options given = DefaultOptions();
    if (options != nullptr) {
      if (const int32_t code = ReadStruct(options, "dspark_options", &given); code < 0) return code;
    }
    const SessionOptions session = ToSessionOptions(given);
    if (auto good = CheckOptions(session); !good) return Fail(DSPARK_ERROR_PARAMETER, good.error());
    auto opened = SharedEngine::Open(session);
    if (!opened) return Fail(DSPARK_ERROR_LOAD, opened.error());
    *engine = Engines().Add(std::move(opened).value());
    return DSPARK_OK;
  });
}

int32_t dspark_free(dspark_engine* engine) {
  return Guarded([&]() -> int32_t { return Engines().Take(engine) ? DSPARK_OK : NoEngine(engine); });
}

int32_t dspark_get_info(dspark_engine* engine, dspark_info* info, size_t size) {
  return WithEngine(engine, [&](SharedEngine& e) -> int32_t {
    const Session& session = e.session();
    dspark_info value{};
    value.context = session.target->limits().max_context;
    value.vocab = session.files.config.vocab;
    value.threads = session.pool->threads();
    value.has_tokenizer = session.files.tokenizer != nullptr;
    value.has_chat = session.files.tokenizer && DetectChatFormat(session.files.chat_template).ok();
    value.has_drafter = session.drafter != nullptr;
    value.load_ms = session.load_ms;
    return WriteStruct(value, "dspark_info", size, info);
  });
}

int64_t dspark_tokenize(dspark_engine* engine, const char* text, size_t bytes, int32_t* tokens,
                        size_t capacity, int32_t add_bos, int32_t parse_special) {
  return WithEngine(engine, [&](SharedEngine& e) -> int64_t {
    if (text == nullptr && bytes > 0) return IsNull("text");
    if (tokens == nullptr && capacity > 0) return IsNull("tokens");
    const ModelFiles& files = e.session().files;
    if (!files.tokenizer) return NoTokenizer(e);
    const auto bos = add_bos != 0 ? PromptBos(files.config) : std::nullopt;
    const std::vector<int32_t> ids =
        EncodeRawPrompt(*files.tokenizer, bos, {text, bytes}, parse_special != 0);
    std::copy_n(ids.begin(), std::min(ids.size(), capacity), tokens);
    return int64_t(ids.size());
  });
}

int64_t dspark_detokenize(dspark_engine* engine, const int32_t* tokens, size_t count, char* text,
                          size_t capacity, int32_t skip_special) {
  return WithEngine(engine, [&](SharedEngine& e) -> int64_t {
    if (tokens == nullptr && count > 0) return IsNull("tokens");
    if (text == nullptr && capacity > 0) return IsNull("text");
    const ModelFiles& files = e.session().files;
    if (!files.tokenizer) return NoTokenizer(e);
    const std::vector<int32_t> ids(tokens, tokens + count);
    return WriteText(files.tokenizer->Decode(ids, skip_special != 0), text, capacity);
  });
}

int64_t dspark_render_chat(dspark_engine* engine, const dspark_message* messages, size_t count,
                           int32_t add_assistant, int32_t think, char* text, size_t capacity) {
  return WithEngine(engine, [&](SharedEngine& e) -> int64_t {
    if (messages == nullptr && count > 0) return IsNull("messages");
    if (text == nullptr && capacity > 0) return IsNull("text");
    const Session& session = e.session();
    if (!session.files.tokenizer) return NoTokenizer(e);
    const auto format = DetectChatFormat(session.files.chat_template);
    if (!format) {
      return Fail(DSPARK_ERROR_UNSUPPORTED, fmt::format("{}: {}", session.model_path, format.error().text));
    }
    std::vector<ChatMessage> turns;
    for (size_t i = 0; i < count; ++i) {
      if (!messages[i].role || !messages[i].content) return IsNull("a message's role or content");
      turns.push_back({messages[i].role, messages[i].content});
    }
    return WriteText(RenderChat(*format, turns, add_assistant != 0, think != 0), text, capacity);
  });
}

int32_t dspark_submit(dspark_engine* engine, const dspark_request* request, dspark_request_id* id) {
  return WithEngine(engine, [&](SharedEngine& e) -> int32_t {
    if (request == nullptr) return IsNull("request");
    if (id == nullptr) return IsNull("id");
    dspark_request given = DefaultRequest();
    if (const int32_t code = ReadStruct(request, "dspark_request", &given); code < 0) return code;
    auto checked = ToRequest(given);
    if (!checked) return Fail(DSPARK_ERROR_PARAMETER, checked.error());
    if (const int32_t code = Constrain(e, given, &*checked); code < 0) return code;
    const auto submitted = e.Submit(std::move(checked).value());
    if (!submitted) return Fail(DSPARK_ERROR_PARAMETER, submitted.error());
    *id = *submitted;
    return DSPARK_OK;
  });
}

int32_t dspark_step(dspark_engine* engine) {
  return WithEngine(engine, [](SharedEngine& e) -> int32_t { return e.Step(); });
}

int32_t dspark_poll(dspark_engine* engine, dspark_request_id id, dspark_event* event, size_t size) {
  return WithEngine(engine, [&](SharedEngine& e) -> int32_t {
    // Before an event is taken, which would be lost.
    if (event == nullptr) return IsNull("event");
    if (!SizeFits(size, sizeof *event)) return WrongSize("dspark_event", size, sizeof *event);
    const auto polled = e.Poll(id);
    if (!polled) return NoRequest(id);
    if (*polled == nullptr) return 0;
    const int32_t code = WriteStruct(ToEvent(**polled), "dspark_event", size, event);
    return code < 0 ? code : 1;
  });
}

int32_t dspark_cancel(dspark_engine* engine, dspark_request_id id) {
  return WithEngine(engine,
                    [&](SharedEngine& e) -> int32_t { return e.Cancel(id) ? DSPARK_OK : NoRequest(id); });
}

int32_t dspark_get_timings(dspark_engine* engine, dspark_request_id id, dspark_timings* timings,
                           size_t size) {
  return WithEngine(engine, [&](SharedEngine& e) -> int32_t {
    const auto stats = e.Stats(id);
    if (!stats) return NoRequest(id);
    if (!*stats) {
      return Fail(DSPARK_ERROR_RUNNING, fmt::format("request {} has not ended; step until it has", id));
    }
    return WriteStruct(ToTimings(**stats), "dspark_timings", size, timings);
  });
}

int32_t dspark_release(dspark_engine* engine, dspark_request_id id) {
  return WithEngine(engine,
                    [&](SharedEngine& e) -> int32_t { return e.Release(id) ? DSPARK_OK : NoRequest(id); });
}

}  // extern "C"

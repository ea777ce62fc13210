#include "serve/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "core/clock.h"
#include "core/sha256.h"
#include "load/printable.h"
#include "serve/api_call.h"
#include "serve/page.h"
#include "serve/reply_form.h"

namespace dspark {
namespace {

using nlohmann::ordered_json;

constexpr char kJson[] = "application/json";
constexpr int kBacklog = 1024;

// httplib listens with a backlog of 5, which loses connections that come together.
class Listener : public httplib::Server {
 public:
  bool RaiseBacklog() { return ::listen(svr_sock_, kBacklog) == 0; }
};

// httplib's own lets two servers have one port.
void ReuseAddress(int socket) {
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
}

struct Route {
  std::string_view path, method;
};
constexpr Route kRoutes[] = {
    {"/", "GET"},          {"/health", "GET"},          {"/metrics", "GET"},
    {"/stats", "GET"},     {"/v1/models", "GET"},       {"/v1/chat/completions", "POST"},
    {"/tokenize", "POST"}, {"/v1/completions", "POST"}, {"/detokenize", "POST"}};

const Route* FindRoute(std::string_view path) {
  for (const Route& route : kRoutes) {
    if (route.path == path) return &route;
  }
  return nullptr;
}

// Of all routes, for who asked for another.
std::string RouteList() {
  std::string list;
  for (const Route& route : kRoutes)
    list += fmt::format("{}{} {}", list.empty() ? "" : ", ", route.method, route.path);
  return list;
}

// Completions log themselves when their last byte is out; what they never saw is left to the server. A server
// that drains says so when it begins, not at every look at its health.
bool NeedsLog(const std::string& path, int status) {
  if (status < 400 || path == "/health") return false;
  const bool turned_away = status == 401 || status == 405 || status == 413 || status == 415;
  return turned_away || (path != "/v1/chat/completions" && path != "/v1/completions");
}

void SendError(const ApiError& error, httplib::Response& response) {
  response.status = error.status;
  response.set_content(ErrorBody(error), kJson);
}

std::string RandomId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

// The client's own where it is fit for a header and a log, else a new one.
std::string RequestId(const httplib::Request& request) {
  const std::string id = request.get_header_value("X-Request-Id");
  const auto fit = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, fit) ? id : "req-" + RandomId();
}

std::vector<std::string> Digests(const std::vector<std::string>& keys) {
  std::vector<std::string> digests;
  digests.reserve(keys.size());
  for (const std::string& key : keys)
    digests.push_back(Sha256Hex({reinterpret_cast<const uint8_t*>(key.data()), key.size()}));
  return digests;
}

// Of equal length, in a time that does not tell where they differ.
bool SameText(std::string_view a, std::string_view b) {
  unsigned differ = a.size() != b.size();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) differ |= unsigned(a[i] ^ b[i]);
  return differ == 0;
}

std::optional<ApiError> CheckContentType(const httplib::Request& request) {
  const std::string type = request.get_header_value("Content-Type");
  if (type.empty() || type.starts_with(kJson)) return {};
  return ApiError{.status = 415,
                  .message = fmt::format("Content-Type is \"{}\"; send application/json (curl: -H "
                                         "'Content-Type: application/json')",
                                         Printable(type)),
                  .code = "unsupported_media_type"};
}

std::optional<ApiError> CheckName(const ServedModel& model, const std::string& name) {
  if (name == model.name || (!model.alias.empty() && name == model.alias)) return {};
  return ApiError{
      .status = 404,
      .message = fmt::format("there is no model \"{}\"; this server has \"{}\"", Printable(name), model.name),
      .param = "model",
      .code = "model_not_found"};
}

std::string OutsideVocabulary(const ServedModel& model, const char* field, int32_t id) {
  return fmt::format("{} has {}; the model's token ids end at {}", field, id, model.vocab - 1);
}

std::optional<ApiError> CheckServable(const ServedModel& model, const ApiRequest& request, int limit) {
  if (!request.model.empty()) {
    if (auto error = CheckName(model, request.model)) return error;
  }
  const int sequences = request.n * std::max(1, int(request.prompts.size()));
  if (sequences > limit) {
    return ApiError{
        .message = fmt::format("the request asks for {} replies and this server takes {} at once; "
                               "ask for fewer",
                               sequences, limit),
        .param = "n"};
  }
  for (const auto& [id, bias] : request.settings.sampling.logit_bias) {
    if (id >= model.vocab)
      return ApiError{.message = OutsideVocabulary(model, "logit_bias", id), .param = "logit_bias"};
  }
  return {};
}

}  // namespace

HttpServer::HttpServer(const ServerOptions& options, const ServedModel& model, EngineLoop& loop,
                       ServeMetrics& metrics, const LoadHistory& history, std::shared_ptr<spdlog::logger> log)
    : options_(options),
      model_(model),
      loop_(loop),
      metrics_(metrics),
      history_(history),
      log_(std::move(log)),
      key_digests_(Digests(options.api_keys)) {}

HttpServer::~HttpServer() { Stop(); }

Result<int> HttpServer::Start() {
  auto listener = std::make_unique<Listener>();
  Listener& http = *listener;
  http_ = std::move(listener);
  Configure();
  AddRoutes();
  const int port = options_.port == 0                                ? http.bind_to_any_port(options_.host)
                   : http.bind_to_port(options_.host, options_.port) ? options_.port
                                                                     : -1;
  if (port < 0) {
    http_.reset();
    return MakeError("cannot listen on {}:{}: {}; choose another --host or --port (0: any free one)",
                     options_.host, options_.port, std::strerror(errno));
  }
  http.RaiseBacklog();
  listener_ = std::thread([this] { http_->listen_after_bind(); });
  while (!http_->is_running()) std::this_thread::yield();
  return port;
}

void HttpServer::Stop() {
  if (!http_) return;
  http_->stop();
  listener_.join();
  http_.reset();
}

void HttpServer::Configure() {
  http_->new_task_queue = [n = options_.connections] { return new httplib::ThreadPool(size_t(n)); };
  http_->set_socket_options(ReuseAddress);
  http_->set_tcp_nodelay(true);
  http_->set_keep_alive_max_count(1 << 20);
  http_->set_keep_alive_timeout(options_.keep_alive_s);
  http_->set_read_timeout(options_.read_timeout_s);
  http_->set_write_timeout(options_.write_timeout_s);
  http_->set_payload_max_length(options_.max_body);
  http_->set_error_handler(
      [this](const httplib::Request& request, httplib::Response& response) { FillError(request, response); });
  http_->set_exception_handler(
      [](const httplib::Request&, httplib::Response& response, const std::exception_ptr&) {
        SendError({.status = 500,
                   .message = "something went wrong inside the server",
                   .type = "server_error",
                   .code = "internal_error"},
                  response);
      });
  http_->set_logger([this](const httplib::Request& request, const httplib::Response& response) {
    metrics_.CountStatus(response.status);
    if (!NeedsLog(request.path, response.status)) return;
    CallRecord{.id = response.get_header_value("X-Request-Id"),
               .path = Printable(request.path),
               .status = response.status,
               .start_ms = NowMs()}
        .Log(*log_);
  });
}

void HttpServer::AddRoutes() {
  using httplib::Request, httplib::Response;
  const auto guarded = [this](auto handler) {
    return [this, handler](const Request& request, Response& response) {
      Prepare(request, response);
      if (Guard(request, response)) handler(request, response);
    };
  };
  const auto text = [](const char* type, auto make) {
    return [type, make](const Request&, Response& response) { response.set_content(make(), type); };
  };
  http_->Get("/", text("text/html; charset=utf-8", [] { return std::string(kPage); }));
  http_->Get("/health", guarded([this](const Request&, Response& r) { Health(r); }));
  http_->Get("/metrics", guarded(text("text/plain; version=0.0.4", [this] { return metrics_.Text(); })));
  http_->Get("/stats", guarded(text(kJson, [this] { return history_.Json(); })));
  http_->Get("/v1/models(/.+)?", guarded([this](const Request& q, Response& r) { Models(q, r); }));
  http_->Post("/tokenize", guarded([this](const Request& q, Response& r) { Tokenize(q, r); }));
  http_->Post("/detokenize", guarded([this](const Request& q, Response& r) { Detokenize(q, r); }));
  http_->Post("/v1/chat/completions",
              guarded([this](const Request& q, Response& r) { Complete(Endpoint::kChat, q, r); }));
  http_->Post("/v1/completions",
              guarded([this](const Request& q, Response& r) { Complete(Endpoint::kCompletions, q, r); }));
  http_->Options(".*", [this](const Request& request, Response& response) {
    Prepare(request, response);
    response.status = 204;
    if (options_.cors_origin.empty()) return;
    response.set_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    // OpenAI's own clients send headers of theirs: whatever is asked for is allowed.
    const std::string asked = request.get_header_value("Access-Control-Request-Headers");
    response.set_header("Access-Control-Allow-Headers",
                        asked.empty() ? "Authorization, Content-Type, X-Request-Id" : asked);
    response.set_header("Access-Control-Max-Age", "86400");
  });
}

// Headers of every response.
void HttpServer::Prepare(const httplib::Request& request, httplib::Response& response) const {
  if (!response.has_header("X-Request-Id")) response.set_header("X-Request-Id", RequestId(request));
  if (options_.cors_origin.empty() || response.has_header("Access-Control-Allow-Origin")) return;
  response.set_header("Access-Control-Allow-Origin", options_.cors_origin);
  response.set_header("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
}

bool HttpServer::Authorised(const httplib::Request& request) const {
  if (key_digests_.empty() || request.path == "/health") return true;
  constexpr std::string_view kBearer = "bearer ";  // in any case (RFC 9110 §11.1)
  const std::string header = request.get_header_value("Authorization");
  const auto same = [](char a, unsigned char b) { return a == std::tolower(b); };
  if (header.size() < kBearer.size() || !std::equal(kBearer.begin(), kBearer.end(), header.begin(), same))
    return false;
  const std::string digest = Digests({header.substr(kBearer.size())}).front();
  bool known = false;
  for (const std::string& key : key_digests_) known |= SameText(digest, key);
  return known;
}

// Whether the request may go on; else it has been answered.
bool HttpServer::Guard(const httplib::Request& request, httplib::Response& response) const {
  if (!Authorised(request)) {
    response.set_header("WWW-Authenticate", "Bearer");
    SendError({.status = 401,
               .message = request.has_header("Authorization")
                              ? "that is none of this server's API keys"
                              : "this server asks for an API key; send it as Authorization: Bearer KEY",
               .type = "authentication_error",
               .code = "invalid_api_key"},
              response);
    return false;
  }
  if (request.method != "POST") return true;
  const auto error = CheckContentType(request);
  if (error) SendError(*error, response);
  return !error;
}

// Responses that httplib made itself get OpenAI's shape.
void HttpServer::FillError(const httplib::Request& request, httplib::Response& response) const {
  Prepare(request, response);
  if (!response.body.empty()) return;
  const Route* route = FindRoute(request.path);
  if (response.status == 413) {
    const ApiError too_long{
        .status = 413,
        .message = fmt::format("the body is longer than {} bytes; shorten it", options_.max_body),
        .code = "body_too_long"};
    return SendError(CheckContentType(request).value_or(too_long), response);
  }
  if (route && route->method != request.method) {
    response.set_header("Allow", std::string(route->method));
    return SendError({.status = 405,
                      .message = fmt::format("{} takes {} requests, not {}", route->path, route->method,
                                             Printable(request.method)),
                      .code = "method_not_allowed"},
                     response);
  }
  const std::string message =
      response.status == 404
          ? fmt::format("there is no {}; there are {}", Printable(request.path), RouteList())
          : std::string("the request is no HTTP that this server understands");
  SendError({.status = response.status,
             .message = message,
             .code = response.status == 404 ? "not_found" : "bad_request"},
            response);
}

void HttpServer::Models(const httplib::Request& request, httplib::Response& response) const {
  const ordered_json model{{"id", model_.name},
                           {"object", "model"},
                           {"created", model_.created},
                           {"owned_by", "dspark"},
                           {"max_model_len", model_.context}};
  if (request.path == "/v1/models") {
    const ordered_json list{{"object", "list"}, {"data", ordered_json::array({model})}};
    return response.set_content(list.dump(), kJson);
  }
  const auto error = CheckName(model_, request.path.substr(std::strlen("/v1/models/")));
  if (error) return SendError(*error, response);
  response.set_content(model.dump(), kJson);
}

void HttpServer::Health(httplib::Response& response) const {
  const bool draining = loop_.draining();
  response.status = draining ? 503 : 200;
  response.set_content(draining ? R"({"status":"draining"})" : R"({"status":"ok"})", kJson);
}

void HttpServer::Tokenize(const httplib::Request& request, httplib::Response& response) const {
  std::string content;
  if (const auto error = ParseTokenize(request.body, &content)) return SendError(*error, response);
  if (!model_.tokenizer)
    return SendError({.message = "the model has no tokenizer", .code = "unsupported_value"}, response);
  const std::vector<int32_t> tokens = model_.tokenizer->Encode(content, true);
  response.set_content(ordered_json{{"tokens", tokens}, {"count", tokens.size()}}.dump(), kJson);
}

void HttpServer::Detokenize(const httplib::Request& request, httplib::Response& response) const {
  std::vector<int32_t> tokens;
  if (const auto error = ParseDetokenize(request.body, &tokens)) return SendError(*error, response);
  if (!model_.tokenizer)
    return SendError({.message = "the model has no tokenizer", .code = "unsupported_value"}, response);
  const int32_t most = tokens.empty() ? 0 : std::ranges::max(tokens);
  if (most >= model_.vocab)
    return SendError({.message = OutsideVocabulary(model_, "tokens", most), .param = "tokens"}, response);
  response.set_content(ordered_json{{"content", model_.tokenizer->Decode(tokens, false)}}.dump(), kJson);
}

// Error: the request was not taken. `*prompt_tokens`: of all prompts, each once.
std::optional<ApiError> HttpServer::Submit(ApiRequest& request, std::shared_ptr<ReplyStream>* stream,
                                           int* prompt_tokens, httplib::Response& response) {
  if (auto error = CheckServable(model_, request, loop_.limit())) return error;
  if (auto error = ConstrainReplies(model_.tokens, &request)) return error;
  std::vector<std::vector<int32_t>> prompts;
  if (auto error = EncodePrompts(model_, request, &prompts)) return error;
  for (const std::vector<int32_t>& prompt : prompts) *prompt_tokens += int(prompt.size());
  EngineLoop::Outcome outcome = loop_.Submit(MakeSequences(model_, request, prompts, std::random_device{}()));
  if (const auto* refusal = std::get_if<Refusal>(&outcome)) {
    response.set_header("Retry-After", std::to_string(refusal->retry_after_s));
    if (refusal->draining) return ShuttingDown();
    return ApiError{.status = 429,
                    .message = fmt::format("{} of {} places are taken; send the request again in {} s",
                                           refusal->live, refusal->limit, refusal->retry_after_s),
                    .type = "rate_limit_error",
                    .code = "queue_full"};
  }
  *stream = std::get<std::shared_ptr<ReplyStream>>(std::move(outcome));
  if (const Status accepted = (*stream)->Accepted(); !accepted)
    return ApiError{.message = accepted.error().text};
  return {};
}

void HttpServer::Complete(Endpoint endpoint, const httplib::Request& http, httplib::Response& response) {
  CallRecord record{.id = response.get_header_value("X-Request-Id"), .path = http.path, .start_ms = NowMs()};
  ApiRequest request;
  std::shared_ptr<ReplyStream> stream;
  auto error = ParseRequest(endpoint, http.body, &request);
  if (!error) error = Submit(request, &stream, &record.prompt_tokens, response);
  if (error) {
    SendError(*error, response);
    record.status = error->status, record.outcome = error->code;
    return record.Log(*log_);
  }
  const bool chat = endpoint == Endpoint::kChat;
  ReplyHeader header{.endpoint = endpoint,
                     .id = (chat ? "chatcmpl-" : "cmpl-") + RandomId(),
                     .created = std::time(nullptr),
                     .model = model_.name,
                     .tokenizer = model_.tokenizer,
                     .n = request.n,
                     .logprobs = request.settings.top_logprobs >= 0,
                     .include_usage = request.include_usage,
                     .tool_calls = OffersTools(request)};
  const double deadline = options_.request_timeout_s > 0 ? NowMs() + 1000 * options_.request_timeout_s : 0;
  auto call = std::make_shared<ApiCall>(loop_, std::move(stream), std::move(header), Connection(http),
                                        std::move(record), log_, deadline);
  if (request.stream) {
    response.set_header("Cache-Control", "no-cache");
    response.set_header("X-Accel-Buffering", "no");  // nginx passes chunks on as they come
    return response.set_chunked_content_provider(
        "text/event-stream", [call](size_t, httplib::DataSink& sink) { return call->Stream(sink); });
  }
  std::string body;
  if (const auto failure = call->Collect(&body)) return SendError(*failure, response);
  response.set_content(body, kJson);
}

}  // namespace dspark

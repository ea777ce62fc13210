#include "apps/http_backend.h"

#include <httplib.h>

#include <algorithm>
#include <chrono>

#include "apps/server_url.h"
#include "core/clock.h"
#include "load/printable.h"

namespace dspark {
namespace {

using std::chrono::milliseconds;
using Kind = HttpAnswer::Kind;

HttpAnswer NoReply(Kind kind, std::string why) {
  HttpAnswer answer{.kind = kind};
  answer.reply.error = std::move(why);
  return answer;
}

std::string TextAt(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

}  // namespace

nlohmann::json RequestBody(const HttpOptions& http, const ReplyOptions& options, const ChatCall& call) {
  const SamplingParams& sampling = options.sampling;
  nlohmann::json body{{"model", http.model},
                      {"messages", nlohmann::json::array()},
                      {"max_tokens", options.max_tokens},
                      {"temperature", sampling.temperature},
                      {"seed", int64_t(call.seed >> 33)},  // 31 bits: what every server takes
                      {"stream", false}};
  for (const ChatMessage& message : call.messages)
    body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  if (sampling.top_p < 1) body["top_p"] = sampling.top_p;
  if (sampling.top_k > 0) body["top_k"] = sampling.top_k;
  if (sampling.min_p > 0) body["min_p"] = sampling.min_p;
  if (sampling.repetition_penalty != 1) body["repetition_penalty"] = sampling.repetition_penalty;
  if (options.no_think) body["chat_template_kwargs"] = {{"enable_thinking", false}};
  return body;
}

HttpAnswer ParseAnswer(int status, const std::string& body) {
  if (status != 200) {
    const bool again = status >= 500 || status == 408 || status == 429;
    return NoReply(again ? Kind::kFailed : Kind::kRefused,
                   fmt::format("HTTP status {}: {}", status, Printable(body, 200)));
  }
  const auto json = nlohmann::json::parse(body, nullptr, false);
  const auto choice = nlohmann::json::json_pointer("/choices/0");
  if (!json.is_object() || !json.contains(choice) || !json[choice].is_object())
    return NoReply(Kind::kFailed, "the answer has no choices: " + Printable(body, 200));
  const auto message = json[choice].value("message", nlohmann::json::object());
  HttpAnswer answer;
  if (message.is_object()) {
    answer.reply.content = TextAt(message, "content");
    answer.reply.thinking = TextAt(message, "reasoning_content");
    if (answer.reply.thinking.empty()) answer.reply.thinking = TextAt(message, "reasoning");
  }
  answer.reply.finish_reason = TextAt(json[choice], "finish_reason");
  if (answer.reply.content.empty())
    return NoReply(Kind::kFailed, fmt::format("the answer has no text (finish_reason '{}')",
                                              Printable(answer.reply.finish_reason)));
  const auto usage = nlohmann::json::json_pointer("/usage/completion_tokens");
  if (json.contains(usage) && json[usage].is_number_integer()) answer.tokens = json[usage];
  return answer;
}

HttpBackend::HttpBackend(const HttpOptions& http, const ReplyOptions& options, Warn warn)
    : http_(http), options_(options), warn_(std::move(warn)) {}

Result<std::unique_ptr<HttpBackend>> HttpBackend::Open(const HttpOptions& http, const ReplyOptions& options,
                                                       Warn warn) {
  std::unique_ptr<HttpBackend> backend(new HttpBackend(http, options, std::move(warn)));
  for (const std::string& url : http.servers) DSPARK_RETURN_IF_ERROR(backend->AddServer(url));
  backend->Probe();
  if (backend->Alive() == 0) {
    return MakeError("no server answers ({}); start one, and check --server, --model-name and the key",
                     backend->latest_silence_);
  }
  backend->Start();
  return backend;
}

Status HttpBackend::AddServer(const std::string& url) {
  DSPARK_ASSIGN_OR_RETURN(const ServerUrl parsed, ParseServerUrl("--server", url));
  servers_.push_back(
      std::make_unique<Server>(Server{.url = url, .origin = parsed.origin, .path = parsed.path}));
  return {};
}

std::unique_ptr<httplib::Client> HttpBackend::Connect(const Server& server) const {
  auto client = std::make_unique<httplib::Client>(server.origin);
  client->set_connection_timeout(milliseconds(int64_t(std::min(http_.timeout_ms, 10000.0))));
  client->set_read_timeout(milliseconds(int64_t(http_.timeout_ms)));
  client->set_write_timeout(milliseconds(int64_t(http_.timeout_ms)));
  client->set_keep_alive(true);
  if (!http_.api_key.empty()) client->set_bearer_token_auth(http_.api_key);
  return client;
}

HttpAnswer HttpBackend::Ask(httplib::Client& client, const Server& server, const ChatCall& call) const {
  const std::string body = RequestBody(http_, options_, call).dump();
  const auto result = client.Post(server.path + "/chat/completions", body, "application/json");
  if (!result) return NoReply(Kind::kSilent, "no answer: " + httplib::to_string(result.error()));
  return ParseAnswer(result->status, result->body);
}

// All at once: a dead one is known only after a time-out.
void HttpBackend::Probe() {
  std::vector<std::thread> probes;
  for (auto& server : servers_) {
    probes.emplace_back([this, &server] {
      const auto client = Connect(*server);
      nlohmann::json body = RequestBody(http_, options_, {.messages = {{"user", "Hello"}}});
      body["max_tokens"] = 1;
      const auto result = client->Post(server->path + "/chat/completions", body.dump(), "application/json");
      const std::lock_guard lock(mutex_);
      server->alive = result && result->status == 200;
      if (server->alive) return;
      latest_silence_ = fmt::format("{}: {}", server->url,
                                    result ? ParseAnswer(result->status, result->body).reply.error
                                           : "no answer: " + httplib::to_string(result.error()));
      notes_.push_back(latest_silence_ + "; left out");
    });
  }
  for (std::thread& probe : probes) probe.join();
  for (const std::string& note : std::exchange(notes_, {})) {
    if (Alive() > 0) warn_(note);
  }
}

void HttpBackend::Start() {
  for (auto& server : servers_) {
    if (!server->alive) continue;
    for (int i = 0; i < http_.concurrency; ++i) {
      httplib::Client& client = *clients_.emplace_back(Connect(*server));
      ++running_;
      threads_.emplace_back([this, &server, &client] { Work(*server, client); });
    }
  }
}

HttpBackend::~HttpBackend() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  // A thread may be just about to send: its client is stopped again.
  while (running_ > 0) {
    for (auto& client : clients_) client->stop();
    std::this_thread::sleep_for(milliseconds(5));
  }
  for (std::thread& thread : threads_) thread.join();
}

void HttpBackend::Work(Server& server, httplib::Client& client) {
  std::unique_lock lock(mutex_);
  while (!closing_ && server.alive) {
    std::optional<Job> job = TakeJob(server);
    if (!job) {
      work_.wait_for(lock, milliseconds(20));  // a job may be waiting for its time
      continue;
    }
    lock.unlock();
    HttpAnswer answer = Ask(client, server, job->call);
    lock.lock();
    Settle(server, std::move(*job), std::move(answer));
  }
  --running_;
}

// The oldest job whose time has come and that did not fail here, unless there is no other place.
std::optional<HttpBackend::Job> HttpBackend::TakeJob(const Server& server) {
  const double now = NowMs();
  const bool alone = Alive() == 1;
  const auto at = std::ranges::find_if(
      jobs_, [&](const Job& job) { return job.ready_ms <= now && (alone || job.failed_at != &server); });
  if (at == jobs_.end()) return {};
  std::optional<Job> job = std::move(*at);
  jobs_.erase(at);
  return job;
}

void HttpBackend::Settle(Server& server, Job job, HttpAnswer answer) {
  server.silences = answer.kind == Kind::kSilent ? server.silences + 1 : 0;
  // Every thread has met it twice, sooner than a call runs out of retries: the calls go elsewhere, or stay
  // undone if there is nowhere.
  if (server.alive && server.silences > 2 * http_.concurrency) {
    server.alive = false;
    latest_silence_ = fmt::format("{}: {}", server.url, answer.reply.error);
    notes_.push_back(latest_silence_ + "; left out from now on");
  }
  const bool again = answer.kind == Kind::kFailed || answer.kind == Kind::kSilent;
  if (again && job.failures < http_.retries) {
    job.ready_ms = NowMs() + http_.backoff_ms * double(1 << std::min(job.failures, 10));
    job.failed_at = &server;
    ++job.failures;
    jobs_.push_back(std::move(job));
    work_.notify_one();
    return;
  }
  if (!answer.reply.error.empty()) answer.reply.error = server.url + ": " + answer.reply.error;
  answer.reply.ticket = job.call.ticket;
  tokens_ += answer.tokens;
  replies_.push_back(std::move(answer.reply));
  done_.notify_one();
}

int HttpBackend::Alive() const {
  return int(std::ranges::count_if(servers_, [](const auto& server) { return server->alive; }));
}

bool HttpBackend::HasRoom() const {
  const std::lock_guard lock(mutex_);
  return under_way_ < http_.concurrency * Alive();
}

void HttpBackend::Submit(ChatCall call) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back({.call = std::move(call)});
  ++under_way_;
  work_.notify_one();
}

Result<std::vector<ChatReply>> HttpBackend::Poll() {
  std::unique_lock lock(mutex_);
  done_.wait_for(lock, milliseconds(100), [&] { return !replies_.empty(); });
  for (const std::string& note : std::exchange(notes_, {})) warn_(note);
  std::vector<ChatReply> replies = std::exchange(replies_, {});
  under_way_ -= int(replies.size());
  if (replies.empty() && Alive() == 0) {
    return MakeError("no server answers any more ({}); the same command goes on once one does",
                     latest_silence_);
  }
  return replies;
}

}  // namespace dspark

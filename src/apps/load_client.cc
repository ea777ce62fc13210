#include "apps/load_client.h"

#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/clock.h"
#include "load/printable.h"

namespace dspark {
namespace {

using nlohmann::json;

std::unique_ptr<httplib::Client> Connect(const ServerUrl& server, const std::string& api_key,
                                         double timeout_s) {
  auto client = std::make_unique<httplib::Client>(server.origin);
  client->set_read_timeout(std::chrono::milliseconds(int64_t(1000 * timeout_s)));
  client->set_keep_alive(true);
  client->set_tcp_nodelay(true);
  if (!api_key.empty()) client->set_bearer_token_auth(api_key);
  return client;
}

// What one event of a stream says.
struct Event {
  bool token = false, done = false;
  int tokens = 0;  // of the whole reply, where usage is there
  std::string error = {};
};

Event ParseEvent(std::string_view data) {
  if (data == "[DONE]") return {.done = true};
  const json event = json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object()) return {.error = "an event that is no JSON: " + Printable(data)};
  if (event.contains("error")) return {.error = Printable(event["error"].dump(), 200)};
  Event parsed;
  const auto delta = json::json_pointer("/choices/0/delta/content");
  const auto usage = json::json_pointer("/usage/completion_tokens");
  if (event.contains(delta) && event[delta].is_string())
    parsed.token = !event[delta].get_ref<const std::string&>().empty();
  if (event.contains(usage) && event[usage].is_number_integer()) parsed.tokens = event[usage];
  return parsed;
}

class Load {
 public:
  Load(const LoadClientOptions& options, std::span<const LoadRequest> requests)
      : options_(options), requests_(requests), replies_(requests.size()) {}

  LoadRun Run() {
    start_ms_ = NowMs();
    if (!options_.closed) Begin();
    std::vector<std::thread> threads;
    const int streams = std::min(options_.streams, int(requests_.size()));
    threads.reserve(size_t(streams));
    for (int i = 0; i < streams; ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    End();
    LoadRun run{.window_ms = end_ms_ - begin_ms_, .window_tokens = double(window_tokens_)};
    if (begin_ms_ == 0) run.window_ms = 0;
    for (size_t i = 0; i < next_; ++i) run.replies.push_back(std::move(replies_[i]));
    return run;
  }

 private:
  void Begin() {
    const std::lock_guard lock(mutex_);
    if (begin_ms_ > 0) return;
    options_.on_begin();
    begin_ms_ = NowMs();
  }
  void End() {
    const std::lock_guard lock(mutex_);
    if (end_ms_ > 0) return;
    options_.on_end();
    end_ms_ = NowMs();
    stopping_ = true;
  }
  void Work() {
    const auto client = Connect(options_.server, options_.api_key, options_.timeout_s);
    while (!stopping_) {
      const size_t at = next_.fetch_add(1);
      if (at >= requests_.size()) {
        next_.fetch_sub(1);
        if (options_.closed) End();
        return;
      }
      if (options_.closed && at >= size_t(options_.streams)) Begin();
      ReplyTimes& reply = replies_[at];
      const double due_ms = options_.closed ? NowMs() : start_ms_ + requests_[at].at_ms;
      while (NowMs() < due_ms) {
        std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(due_ms - NowMs()));
      }
      reply.due_ms = due_ms;
      Ask(*client, requests_[at].body, &reply);
    }
  }

  void Ask(httplib::Client& client, const std::string& body, ReplyTimes* reply) {
    int status = 0;
    bool done = false;
    std::string text;  // an event that is not complete yet; of an error, all
    httplib::Request request;
    request.method = "POST";
    request.path = options_.server.path + "/chat/completions";
    request.headers = {{"Content-Type", "application/json"}};
    request.body = body;
    request.response_handler = [&](const httplib::Response& response) {
      status = response.status;
      return true;
    };
    request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
      text.append(data, size);
      if (status == 200) done |= ReadEvents(&text, reply);
      return !stopping_ && reply->error.empty();
    };
    const httplib::Result result = client.send(request);
    if (!reply->error.empty()) return;
    if (done) {  // whatever became of the connection then
      reply->complete = true;
    } else if (status != 0 && status != 200) {
      reply->error = fmt::format("HTTP status {}: {}", status, Printable(text, 200));
    } else if (!stopping_) {
      reply->error = result ? std::string("the stream ended before data: [DONE]")
                            : "no answer: " + httplib::to_string(result.error());
    }
  }

  // Takes whole events out of `text`. True at the stream's last one.
  bool ReadEvents(std::string* text, ReplyTimes* reply) {
    bool done = false;
    size_t begin = 0;
    for (size_t end; (end = text->find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line = std::string_view(*text).substr(begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
      const Event event = ParseEvent(line);
      done |= event.done;
      if (!event.error.empty()) reply->error = event.error;
      if (event.tokens > 0) reply->tokens = event.tokens;
      if (event.token) Count(reply);
    }
    text->erase(0, begin);
    return done;
  }

  void Count(ReplyTimes* reply) {
    reply->last_ms = NowMs();
    if (reply->tokens++ == 0) reply->first_ms = reply->last_ms;
    const std::lock_guard lock(mutex_);
    if (begin_ms_ > 0 && end_ms_ == 0) ++window_tokens_;
  }

  const LoadClientOptions& options_;
  const std::span<const LoadRequest> requests_;
  std::vector<ReplyTimes> replies_;  // [requests], each written by one thread
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopping_{false};
  double start_ms_ = 0;
  std::mutex mutex_;  // of all below
  double begin_ms_ = 0, end_ms_ = 0;
  int64_t window_tokens_ = 0;
};

}  // namespace

LoadRun RunLoad(const LoadClientOptions& options, std::span<const LoadRequest> requests) {
  return Load(options, requests).Run();
}

Result<std::string> AskModelName(const ServerUrl& server, const std::string& api_key) {
  const auto client = Connect(server, api_key, 10);
  const auto result = client->Get(server.path + "/models");
  if (!result)
    return MakeError("--url {}: no answer: {}; start the server first", server.origin,
                     httplib::to_string(result.error()));
  const json body = json::parse(result->body, nullptr, /*allow_exceptions=*/false);
  const auto id = json::json_pointer("/data/0/id");
  if (result->status != 200 || !body.is_object() || !body.contains(id) || !body[id].is_string())
    return MakeError("--url {}: {}/models names no model (HTTP status {}); give --model-name", server.origin,
                     server.path, result->status);
  return body[id].get<std::string>();
}

}  // namespace dspark

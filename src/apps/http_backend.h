// Chat replies by servers that speak OpenAI's /v1/chat/completions: vLLM, SGLang, llama.cpp and others.
//
// Each server has `concurrency` threads, and all take their calls from one queue: a call goes to whichever
// server has room, and a slow one holds up nothing but its own calls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/reply_options.h"
#include "data/regenerate.h"

namespace httplib {
class Client;
}

namespace dspark {

struct HttpOptions {
  std::vector<std::string> servers;  // http://host:port or https://…; a path stands for /v1
  std::string model;                 // as the servers know it
  std::string api_key;               // sent as a bearer token; empty: none
  int concurrency = 64;              // calls at once, of each server
  int retries = 3;                   // of a call, on other servers where there are any
  double backoff_ms = 500;           // before the first retry; twice as long before each further one
  double timeout_ms = 600000;        // without an answer
};

// The body of a call. Settings go by their own names, and only where they are not the servers' usual ones: a
// strict server refuses names it does not know.
nlohmann::json RequestBody(const HttpOptions& http, const ReplyOptions& options, const ChatCall& call);

// What a server said to a call.
struct HttpAnswer {
  enum class Kind {
    kReply,
    kRefused,  // the same call would be refused again
    kFailed,   // another try may do: server errors, answers without a text
    kSilent,   // as kFailed, and nothing came back at all
  };
  Kind kind = Kind::kReply;
  ChatReply reply{};   // content, thinking, finish_reason; or error
  int64_t tokens = 0;  // of the reply, where the server counts them
};
HttpAnswer ParseAnswer(int status, const std::string& body);

class HttpBackend : public ChatBackend {
 public:
  using Warn = std::function<void(const std::string& line)>;

  // Asks every server for one token; one that does not answer is left out and `warn` says so, now and when
  // one falls silent later. Error: a URL that is none, or no server answers.
  static Result<std::unique_ptr<HttpBackend>> Open(const HttpOptions& http, const ReplyOptions& options,
                                                   Warn warn);
  ~HttpBackend() override;  // drops what is under way

  bool HasRoom() const override;
  void Submit(ChatCall call) override;
  Result<std::vector<ChatReply>> Poll() override;
  int64_t tokens() const override { return tokens_; }

 private:
  struct Server {
    std::string url, origin, path;
    bool alive = false;
    int silences = 0;  // in a row
  };
  struct Job {
    ChatCall call;
    int failures = 0;
    const Server* failed_at = nullptr;  // the latest
    double ready_ms = 0;
  };

  HttpBackend(const HttpOptions& http, const ReplyOptions& options, Warn warn);
  Status AddServer(const std::string& url);
  void Probe();
  void Start();
  std::unique_ptr<httplib::Client> Connect(const Server& server) const;
  HttpAnswer Ask(httplib::Client& client, const Server& server, const ChatCall& call) const;
  void Work(Server& server, httplib::Client& client);
  // With mutex_ held.
  std::optional<Job> TakeJob(const Server& server);
  void Settle(Server& server, Job job, HttpAnswer answer);
  int Alive() const;

  const HttpOptions http_;
  const ReplyOptions options_;
  const Warn warn_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::vector<std::unique_ptr<httplib::Client>> clients_;  // one a thread
  std::vector<std::thread> threads_;
  std::atomic<int> running_{0};  // threads
  std::atomic<int64_t> tokens_{0};

  mutable std::mutex mutex_;  // of all below, and of Server::alive and silences
  std::condition_variable work_, done_;
  std::deque<Job> jobs_;
  std::vector<ChatReply> replies_;
  std::vector<std::string> notes_;  // for warn_, which is called from Poll only
  std::string latest_silence_;
  int under_way_ = 0;  // submitted and not yet given out by Poll
  bool closing_ = false;
};

}  // namespace dspark

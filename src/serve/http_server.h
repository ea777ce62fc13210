// The HTTP side of `dspark serve`: OpenAI's API, health, metrics and a live page (docs/api.md).
//
// Every connection has a thread while it is open; the engine's own thread knows nothing of HTTP. All errors
// come as OpenAI's error object.
#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/result.h"
#include "serve/engine_loop.h"
#include "serve/load_history.h"
#include "serve/metrics.h"
#include "serve/served_model.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace dspark {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                      // 0: any free one
  std::vector<std::string> api_keys{};  // any of them opens all but / and /health; empty: no key is asked for
  std::string cors_origin{};            // Access-Control-Allow-Origin; empty: no CORS headers
  int connections = 512;                // at once; further ones wait
  size_t max_body = 8 << 20;            // bytes
  int read_timeout_s = 10, write_timeout_s = 30, keep_alive_s = 5;
  double request_timeout_s = 0;  // of a completion, from its arrival; 0: none
};

// LoadObservers side by side.
class LoadObservers : public LoadObserver {
 public:
  explicit LoadObservers(std::vector<LoadObserver*> observers) : observers_(std::move(observers)) {}
  void OnStep(const StepRecord& step) override {
    for (LoadObserver* observer : observers_) observer->OnStep(step);
  }
  void OnEnd(const EndRecord& end) override {
    for (LoadObserver* observer : observers_) observer->OnEnd(end);
  }

 private:
  std::vector<LoadObserver*> observers_;
};

class HttpServer {
 public:
  // All that is given by reference outlives the server.
  HttpServer(const ServerOptions& options, const ServedModel& model, EngineLoop& loop, ServeMetrics& metrics,
             const LoadHistory& history, std::shared_ptr<spdlog::logger> log);
  ~HttpServer();  // as Stop

  // Binds and answers from now on, on threads of its own. The port. Error: the address cannot be had.
  Result<int> Start();
  // Closes the listening socket, and returns when every connection has ended: replies under way must have
  // been ended before (EngineLoop::Drain).
  void Stop();

 private:
  void Configure();
  void AddRoutes();
  bool Authorised(const httplib::Request& request) const;
  void Prepare(const httplib::Request& request, httplib::Response& response) const;
  bool Guard(const httplib::Request& request, httplib::Response& response) const;
  void FillError(const httplib::Request& request, httplib::Response& response) const;

  void Models(const httplib::Request& request, httplib::Response& response) const;
  void Health(httplib::Response& response) const;
  void Tokenize(const httplib::Request& request, httplib::Response& response) const;
  void Detokenize(const httplib::Request& request, httplib::Response& response) const;
  void Complete(Endpoint endpoint, const httplib::Request& request, httplib::Response& response);
  std::optional<ApiError> Submit(ApiRequest& request, std::shared_ptr<ReplyStream>* stream,
                                 int* prompt_tokens, httplib::Response& response);

  const ServerOptions options_;
  const ServedModel& model_;
  EngineLoop& loop_;
  ServeMetrics& metrics_;
  const LoadHistory& history_;
  const std::shared_ptr<spdlog::logger> log_;
  const std::vector<std::string> key_digests_;  // SHA-256
  std::unique_ptr<httplib::Server> http_;
  std::thread listener_;
};

}  // namespace dspark

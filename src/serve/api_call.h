// One request to the completions endpoints, from its acceptance to its last byte.
#pragma once

#include <httplib.h>
#include <spdlog/logger.h>

#include <memory>
#include <string>
#include <vector>

#include "serve/connection.h"
#include "serve/engine_loop.h"
#include "serve/openai_reply.h"

namespace dspark {

// What an access log says of a request. Fields that it never came to are left out of the line.
struct CallRecord {
  std::string id{}, path{};
  int status = 200;
  double start_ms = 0, first_token_ms = 0;  // NowMs; 0: no token came
  int choices = 0;
  int prompt_tokens = 0, completion_tokens = 0, rounds = 0, committed = 0, drafted = 0, accepted = 0;
  std::string outcome{};  // finish reason, or what ended it

  void Log(spdlog::logger& log) const;
};

// Owns the sequences: what still runs when it is destroyed is cancelled. Reads the engine's events on the
// thread that answers the request.
class ApiCall {
 public:
  ApiCall(EngineLoop& loop, std::shared_ptr<ReplyStream> stream, ReplyHeader header, const Connection& client,
          CallRecord record, std::shared_ptr<spdlog::logger> log, double deadline_ms);
  ~ApiCall();
  ApiCall(const ApiCall&) = delete;
  ApiCall& operator=(const ApiCall&) = delete;

  // Waits for all choices. Error: none, but what ended the call early; then `*body` is empty.
  std::optional<ApiError> Collect(std::string* body);
  // Waits for some events and writes them as chunks; the last call ends the sink. False: the client is gone.
  bool Stream(httplib::DataSink& sink);

 private:
  std::optional<ApiError> Take();
  void Add(ReplyEvent event);
  std::optional<ApiError> Ended(const TokenEvent& last) const;

  EngineLoop& loop_;
  const std::shared_ptr<ReplyStream> stream_;
  const ReplyHeader header_;
  const Connection client_;
  const std::shared_ptr<spdlog::logger> log_;
  const double deadline_ms_;  // NowMs; 0: none
  CallRecord record_;
  ReplyChunks chunks_;
  std::vector<ReplyChoice> choices_;
  int open_;  // choices that have not ended
  bool begun_ = false;
  double probe_ms_ = 0;  // when to look next whether the client is there
  std::vector<ReplyEvent> events_;
  std::string out_;
};

}  // namespace dspark

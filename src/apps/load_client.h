// The asking side of `dspark bench serve`: many streams of /v1/chat/completions at once, timed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "apps/server_url.h"
#include "eval/traffic_figures.h"

namespace dspark {

struct LoadRequest {
  double at_ms = 0;  // from the beginning
  std::string body;  // of the POST, with "stream": true
};

struct LoadClientOptions {
  ServerUrl server = {};
  std::string api_key = {};
  int streams = 1;      // connections
  bool closed = false;  // a stream takes the next request as soon as it is free, whatever its time
  double timeout_s = 600;
  // Told when the load's window begins and ends, before tokens of after are counted.
  std::function<void()> on_begin = [] {}, on_end = [] {};
};

// Sends `requests`, sorted by time, and reads the replies; returns when all have ended. The window of an open
// load is all of it. That of a closed one lasts from when the first stream asks again to when one finds
// nothing left to ask, so that it holds as many prompts as replies; then replies under way are dropped. What
// fails is in the replies.
LoadRun RunLoad(const LoadClientOptions& options, std::span<const LoadRequest> requests);

// The first model's name. Error: no server, or one that names none.
Result<std::string> AskModelName(const ServerUrl& server, const std::string& api_key);

}  // namespace dspark

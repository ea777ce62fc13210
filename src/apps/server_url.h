// Where a server with OpenAI's API is.
#pragma once

#include <string>

#include "core/result.h"

namespace dspark {

struct ServerUrl {
  std::string origin = {};  // http://127.0.0.1:8000
  std::string path = {};    // /v1 where the URL has none
};

// Error: `url`, which `flag` gave, is none.
Result<ServerUrl> ParseServerUrl(const char* flag, const std::string& url);

}  // namespace dspark

#include "apps/server_url.h"

#include <algorithm>
#include <cctype>

#include "load/printable.h"

namespace dspark {

Result<ServerUrl> ParseServerUrl(const char* flag, const std::string& url) {
  const size_t scheme = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  const size_t slash = std::min(url.find('/', scheme), url.size());
  const std::string host = url.substr(scheme, slash - scheme);
  const size_t colon = host.rfind(':');
  const bool has_port = colon != std::string::npos && host.find(']', colon) == std::string::npos;
  const std::string port = has_port ? host.substr(colon + 1) : "80";
  const bool port_ok = !port.empty() && port.size() <= 5 &&
                       std::ranges::all_of(port, [](unsigned char c) { return std::isdigit(c); }) &&
                       std::stoi(port) <= 65535;
  if (scheme == 0 || host.empty() || colon == 0 || !port_ok)
    return MakeError("{} {}: not a URL such as http://127.0.0.1:8000", flag, Printable(url));
  std::string path = url.substr(slash);
  while (path.ends_with('/')) path.pop_back();
  return ServerUrl{url.substr(0, slash), path.empty() ? "/v1" : path};
}

}  // namespace dspark

// Any bytes as the body of every endpoint: read, or refused with one line and a 4xx status.
#include <cstddef>
#include <cstdint>

#include "core/check.h"
#include "serve/openai_request.h"

namespace {

void Check(const std::optional<dspark::ApiError>& error) {
  if (!error) return;
  DSPARK_CHECK(error->status >= 400 && error->status < 500);
  DSPARK_CHECK(!error->message.empty() && error->message.find('\n') == std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    ApiRequest request;
    const auto error = ParseRequest(endpoint, body, &request);
    Check(error);
    if (error) continue;
    DSPARK_CHECK(request.n >= 1 && request.settings.top_logprobs >= -1);
    DSPARK_CHECK(request.messages.empty() != request.prompts.empty());
    DSPARK_CHECK(!request.max_tokens || *request.max_tokens >= 1);
  }
  std::string content;
  std::vector<int32_t> tokens;
  Check(ParseTokenize(body, &content));
  Check(ParseDetokenize(body, &tokens));
  return 0;
}

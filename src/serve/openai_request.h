// Bodies of OpenAI's /v1/chat/completions and /v1/completions, from bytes to checked plain structs.
//
// Fields that we do not know are passed over, as OpenAI's own servers and clients of other servers expect; a
// field that we know must have its type and range. null is the same as absent.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"

namespace dspark {

// OpenAI's error object, and the HTTP status it comes with.
struct ApiError {
  int status = 400;
  std::string message;                         // one line: what, where, how to mend it
  std::string param{};                         // the field, such as "messages[2].content"; empty: none
  std::string type = "invalid_request_error";  // of client errors; others "server_error" and so on
  std::string code = "invalid_value";
};

struct ToolCall {
  std::string id, name, arguments;  // arguments: JSON text
};

struct ApiMessage {
  std::string role;     // system, user, assistant or tool; OpenAI's "developer" is read as system
  std::string content;  // text parts joined
  std::vector<ToolCall> tool_calls{};
  std::string tool_call_id{};  // of role tool
};

struct ResponseFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string name{}, schema{};  // of kJsonSchema; schema: JSON text
  bool strict = false;
};

// Schemas are texts with their keys in the request's order.
struct Tool {
  std::string name, description;
  std::string parameters;  // a JSON schema's text; empty: none
  bool strict = false;
};

struct ToolChoice {
  enum class Kind { kAuto, kNone, kRequired, kFunction };
  Kind kind = Kind::kAuto;
  std::string name{};  // of kFunction
};

// Text, or token ids as they are.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct ApiRequest {
  std::string model, user;
  std::vector<ApiMessage> messages;  // of chat
  std::vector<PromptInput> prompts;  // of completions: each is answered `n` times
  // Settings of every sequence; its prompt, and a seed where none was given, are the caller's to fill in.
  Request settings;
  std::optional<int> max_tokens;  // absent: whatever the context holds (chat), 16 (completions)
  std::optional<uint64_t> seed;
  int n = 1;
  bool stream = false;
  bool include_usage = false;  // a last chunk with the usage
  ResponseFormat response_format;
  std::vector<Tool> tools;
  std::optional<ToolChoice> tool_choice;
  bool parallel_tool_calls = true;
};

enum class Endpoint { kChat, kCompletions };

// Error: nothing of `request` may be used. A pure function.
std::optional<ApiError> ParseRequest(Endpoint endpoint, std::string_view body, ApiRequest* request);

// {"content": "text", "add_special": false} of /tokenize: the text. {"tokens": [1, 2]} of /detokenize: ids.
std::optional<ApiError> ParseTokenize(std::string_view body, std::string* content);
std::optional<ApiError> ParseDetokenize(std::string_view body, std::vector<int32_t>* tokens);

}  // namespace dspark

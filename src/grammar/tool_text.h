// Tools in text: how a prompt offers them, and how a reply calls them.
//
// One form for all models, that of the Qwen family's templates, to the letter: a system message ends with
// ToolPreamble, a call is "<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>", its result is a user's
// message, "<tool_response>\n…\n</tool_response>".
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dspark {

inline constexpr std::string_view kCallTag = "<tool_call>", kCallEndTag = "</tool_call>";

struct ToolFunction {
  std::string name, description;
  nlohmann::ordered_json parameters;  // a JSON schema; null: none
};

struct ParsedCall {
  std::string name;
  std::string arguments;  // JSON text
};

// Offers the tools, and says how to call one.
std::string ToolPreamble(std::span<const ToolFunction> tools);
// A call as it stands in a reply, behind `content`.
void AppendCall(const ParsedCall& call, std::string* content);
// A result, behind those of other calls of the same reply.
void AppendToolResult(std::string_view result, std::string* content);

// Takes a reply apart into text and calls, as it comes. White space around calls is no text; a call that is
// cut off or is no JSON object of a name and arguments stays text.
class ToolCallParser {
 public:
  struct Piece {
    std::string content;
    std::vector<ParsedCall> calls;  // whole ones
  };
  // What `text` completes. Text that may still become part of a call, and white space, wait.
  Piece Add(std::string_view text);
  // What is left at the end.
  Piece Finish();

 private:
  bool TakeCall(Piece* piece);
  void TakeText(size_t end, Piece* piece);

  std::string held_;         // text that waits; a call's tag has only white space before it
  bool after_call_ = false;  // no text came since the last call
};

}  // namespace dspark

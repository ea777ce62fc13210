#include "grammar/tool_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/json_depth.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

// As Python's json.dumps and the templates' tojson write it.
void AppendSpaced(const Json& value, std::string* text) {
  if (!value.is_structured()) {
    *text += value.dump();
    return;
  }
  *text += value.is_object() ? '{' : '[';
  bool first = true;
  for (const auto& [key, inner] : value.items()) {
    if (!std::exchange(first, false)) *text += ", ";
    if (value.is_object()) *text += Json(key).dump() + ": ";
    AppendSpaced(inner, text);
  }
  *text += value.is_object() ? '}' : ']';
}

std::string Spaced(const Json& value) {
  std::string text;
  AppendSpaced(value, &text);
  return text;
}

// Discarded where it is no JSON, or too deep to recurse over.
Json ParseShallow(std::string_view text) {
  return Json::parse(JsonDepth(text) > kMostJsonDepth ? "" : text, nullptr, /*allow_exceptions=*/false);
}

constexpr std::string_view kBlanks = " \t\r\n";

// How many bytes at the end of `text` may be the beginning of a tag, with the white space before it.
size_t Undecided(std::string_view text) {
  size_t tag = std::min(text.size(), kCallTag.size() - 1);
  while (!text.ends_with(kCallTag.substr(0, tag))) --tag;
  const size_t last = text.substr(0, text.size() - tag).find_last_not_of(kBlanks);
  return text.size() - (last == std::string_view::npos ? 0 : last + 1);
}

bool ParseCall(std::string_view text, ParsedCall* call) {
  const Json parsed = ParseShallow(text);
  if (!parsed.is_object() || !parsed.contains("name") || !parsed["name"].is_string()) return false;
  const Json arguments = parsed.value("arguments", Json::object());
  if (!arguments.is_object()) return false;
  *call = {parsed["name"], Spaced(arguments)};
  return true;
}

}  // namespace

std::string ToolPreamble(std::span<const ToolFunction> tools) {
  std::string text =
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
      "function signatures within <tools></tools> XML tags:\n<tools>";
  for (const ToolFunction& tool : tools) {
    Json function = {{"name", tool.name}};
    if (!tool.description.empty()) function["description"] = tool.description;
    if (!tool.parameters.is_null()) function["parameters"] = tool.parameters;
    text += '\n' + Spaced({{"type", "function"}, {"function", function}});
  }
  return text +
         "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
         "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
         "<args-json-object>}\n</tool_call>";
}

void AppendCall(const ParsedCall& call, std::string* content) {
  const Json arguments = ParseShallow(call.arguments);
  if (!content->empty()) *content += '\n';
  *content += fmt::format("{}\n{{\"name\": {}, \"arguments\": {}}}\n{}", kCallTag, Json(call.name).dump(),
                          arguments.is_discarded() ? call.arguments : Spaced(arguments), kCallEndTag);
}

void AppendToolResult(std::string_view result, std::string* content) {
  if (!content->empty()) *content += '\n';
  *content += fmt::format("<tool_response>\n{}\n</tool_response>", result);
}

void ToolCallParser::TakeText(size_t end, Piece* piece) {
  std::string_view text = std::string_view(held_).substr(0, end);
  if (after_call_) text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  if (!text.empty()) after_call_ = false;
  piece->content += text;
  held_.erase(0, end);
}

// A closing tag may stand in an argument: the first one that ends a call is the call's.
bool ToolCallParser::TakeCall(Piece* piece) {
  const size_t begin = held_.find(kCallTag) + kCallTag.size();
  for (size_t end = begin; (end = held_.find(kCallEndTag, end)) != std::string::npos;
       end += kCallEndTag.size()) {
    ParsedCall call;
    if (!ParseCall(std::string_view(held_).substr(begin, end - begin), &call)) continue;
    piece->calls.push_back(std::move(call));
    held_.erase(0, end + kCallEndTag.size());
    after_call_ = true;
    return true;
  }
  return false;
}

ToolCallParser::Piece ToolCallParser::Add(std::string_view text) {
  Piece piece;
  held_ += text;
  do {
    const size_t tag = held_.find(kCallTag);
    const std::string_view before = std::string_view(held_).substr(0, tag);
    const bool found = tag != std::string::npos;
    TakeText(found ? before.find_last_not_of(kBlanks) + 1 : before.size() - Undecided(before), &piece);
    if (!found) break;
  } while (TakeCall(&piece));
  return piece;
}

ToolCallParser::Piece ToolCallParser::Finish() {
  Piece piece;
  TakeText(held_.size(), &piece);
  return piece;
}

}  // namespace dspark

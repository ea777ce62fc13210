#include "serve/reply_form.h"

#include <utility>

#include "grammar/response_constraint.h"
#include "grammar/tool_text.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

ToolChoice ChoiceOf(const ApiRequest& request) { return request.tool_choice.value_or(ToolChoice{}); }

std::vector<ToolFunction> FunctionsOf(const std::vector<Tool>& tools) {
  std::vector<ToolFunction> functions;
  for (const Tool& tool : tools) {
    const Json parameters = tool.parameters.empty() ? Json() : Json::parse(tool.parameters);
    functions.push_back({tool.name, tool.description, parameters});
  }
  return functions;
}

}  // namespace

bool OffersTools(const ApiRequest& request) {
  return !request.tools.empty() && ChoiceOf(request).kind != ToolChoice::Kind::kNone;
}

std::optional<ApiError> ConstrainReplies(std::shared_ptr<const TokenTrie> tokens, ApiRequest* request) {
  const ToolChoice choice = ChoiceOf(*request);
  ReplyForm form{.parallel_calls = request->parallel_tool_calls};
  if (OffersTools(*request)) {
    form.tools = FunctionsOf(request->tools);
    form.calls =
        choice.kind == ToolChoice::Kind::kAuto ? ReplyForm::Calls::kAuto : ReplyForm::Calls::kRequired;
    form.function = choice.name;
  } else if (choice.kind == ToolChoice::Kind::kRequired || choice.kind == ToolChoice::Kind::kFunction) {
    return ApiError{.message = "tool_choice asks for a call, but there are no tools; send some",
                    .param = "tool_choice"};
  }
  const ResponseFormat& format = request->response_format;
  if (format.kind == ResponseFormat::Kind::kJsonObject) form.content = ReplyForm::Content::kJsonObject;
  if (format.kind == ResponseFormat::Kind::kJsonSchema) {
    form.content = ReplyForm::Content::kJsonSchema;
    form.schema = Json::parse(format.schema);
  }
  const bool free = form.content == ReplyForm::Content::kText && form.calls == ReplyForm::Calls::kNone;
  if (free) return {};
  if (!tokens)
    return ApiError{.message = "the model has no tokenizer: its replies cannot be given a form",
                    .param = form.tools.empty() ? "response_format" : "tools",
                    .code = "unsupported_value"};
  std::string param;
  auto constraint = MakeResponseConstraint(form, std::move(tokens), &param);
  if (!constraint) {
    return ApiError{.message = fmt::format("{}: {}", param, constraint.error().text), .param = param};
  }
  request->settings.constraint = std::move(constraint).value();
  return {};
}

std::vector<ChatMessage> PlainMessages(const ApiRequest& request) {
  std::vector<ChatMessage> messages;
  bool results = false;  // the last message is one of results
  for (const ApiMessage& message : request.messages) {
    const bool is_result = message.role == "tool";
    if (!is_result || !results) messages.push_back({is_result ? "user" : message.role, ""});
    std::string& content = messages.back().content;
    if (is_result)
      AppendToolResult(message.content, &content);
    else
      content = message.content;
    for (const ToolCall& call : message.tool_calls) AppendCall({call.name, call.arguments}, &content);
    results = is_result;
  }
  if (!OffersTools(request)) return messages;
  if (messages[0].role != "system") messages.insert(messages.begin(), {"system", ""});
  std::string& system = messages[0].content;
  if (!system.empty()) system += "\n\n";
  system += ToolPreamble(FunctionsOf(request.tools));
  return messages;
}

}  // namespace dspark

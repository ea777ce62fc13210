#include "data/conversation.h"

#include <optional>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

// The role a message counts as; empty: it is left out.
std::string_view RoleOf(std::string_view name, bool first) {
  if (name == "human" || name == "user") return "user";
  for (const std::string_view assistant : {"assistant", "gpt", "chatgpt", "bing", "bard"}) {
    if (name == assistant) return "assistant";
  }
  return name == "system" && first ? "system" : "";
}

const std::string* TextOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get_ptr<const std::string*>() : nullptr;
}

// The message as {"role", "content"}; nothing for one that is left out.
Result<std::optional<ChatMessage>> ParseMessage(const Json& message, size_t index) {
  if (!message.is_object()) return MakeError("message {} is no object", index + 1);
  const bool openai = message.contains("role");
  const std::string* name = TextOf(message, openai ? "role" : "from");
  if (!name) return MakeError("message {} has neither \"role\" nor \"from\"", index + 1);
  const std::string_view role = RoleOf(*name, index == 0);
  if (role.empty()) return std::optional<ChatMessage>();
  const char* key = openai ? "content" : "value";
  const std::string what = fmt::format("\"{}\" of message {}", key, index + 1);
  DSPARK_ASSIGN_OR_RETURN(std::string content, ContentText(message.value(key, Json()), what));
  if (content.empty()) return MakeError("{} is empty", what);
  return std::optional(ChatMessage{std::string(role), std::move(content)});
}

}  // namespace

Result<Conversation> ParseConversation(std::string_view row) {
  Json json = Json::parse(row, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return MakeError("not JSON");
  if (!json.is_object()) return MakeError("not a JSON object");
  const char* key = json.contains("conversations") ? "conversations" : "messages";
  const auto list = json.find(key);
  if (list == json.end() || !list->is_array())
    return MakeError("neither \"conversations\" nor \"messages\" holds a list");

  Conversation conversation;
  for (size_t i = 0; i < list->size(); ++i) {
    DSPARK_ASSIGN_OR_RETURN(std::optional<ChatMessage> message, ParseMessage((*list)[i], i));
    if (message) conversation.messages.push_back(std::move(*message));
  }
  const auto& messages = conversation.messages;
  const size_t first = !messages.empty() && messages[0].role == "system" ? 1 : 0;
  if (messages.size() <= first) return MakeError("no message of a user");
  if (messages[first].role != "user") return MakeError("the first message is not from the user");
  if (const auto id = json.find("id"); id != json.end() && !id->is_null()) {
    if (!IsRowId(*id)) return MakeError("id {} is neither a text nor a whole number of 64 bits", id->dump());
    conversation.id = *id;
  }
  json.erase(key);
  json.erase("id");
  conversation.other = std::move(json);
  return conversation;
}

bool IsRowId(const Json& id) { return id.is_string() || id.is_number_integer(); }

Result<std::string> ContentText(const Json& content, const std::string& what) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return MakeError("{} is no text", what);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string *type = TextOf(content[i], "type"), *part = TextOf(content[i], "text");
    if (!type || *type != "text" || !part) {
      return MakeError("part {} of {} is {}, not text", i + 1, what,
                       type && *type != "text" ? *type : "malformed");
    }
    text += (i > 0 ? "\n" : "") + *part;
  }
  return text;
}

std::string ConversationLine(const Conversation& conversation) {
  Json json;
  json["id"] = conversation.id;
  Json& list = json["conversations"] = Json::array();
  for (const ChatMessage& message : conversation.messages)
    list.push_back({{"role", message.role}, {"content", message.content}});
  for (const auto& [key, value] : conversation.other.items()) json[key] = value;
  return json.dump() + "\n";
}

}  // namespace dspark

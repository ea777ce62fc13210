// Conversations as JSONL files hold them (data_pipeline.md §2).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "load/chat_template.h"

namespace dspark {

struct Conversation {
  nlohmann::json id;  // as in the row, by IsRowId; null where it has none
  // Roles are "user" and "assistant", and at the very beginning perhaps "system".
  std::vector<ChatMessage> messages;
  nlohmann::ordered_json other = nlohmann::ordered_json::object();  // the row's other keys, in its order
};

// One row: {"conversations": [...]} or {"messages": [...]}, of {"from", "value"} (ShareGPT) or {"role",
// "content"} (OpenAI). human means user, and gpt, chatgpt, bing and bard assistant; messages of any other
// role are left out, but for a system message at the beginning. Error: no such object, an id that is none, no
// message left, the first one not from the user, or a content that is no text or empty; says what is wrong,
// not where.
Result<Conversation> ParseConversation(std::string_view row);

// Whether it may tell rows apart: a text, or a whole number of 64 bits. Others have more than one way to be
// written, or become equal when they are read.
bool IsRowId(const nlohmann::ordered_json& id);

// A message's content: a text, or OpenAI's list of parts {"type": "text", "text"}, which are joined by "\n"
// as servers do. Error: anything else; `what` is how the message calls itself.
Result<std::string> ContentText(const nlohmann::ordered_json& content, const std::string& what);

// {"id", "conversations": [{"role", "content"}, ...], other keys}, UTF-8 as it is, with "\n".
std::string ConversationLine(const Conversation& conversation);

}  // namespace dspark

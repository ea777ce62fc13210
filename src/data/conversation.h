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
  nlohmann::json id;  // as in the row; null where it has none
  // Roles are "user" and "assistant", and at the very beginning perhaps "system".
  std::vector<ChatMessage> messages;
  nlohmann::ordered_json other = nlohmann::ordered_json::object();  // the row's other keys, in its order
};

// One row: {"conversations": [...]} or {"messages": [...]}, of {"from", "value"} (ShareGPT) or {"role",
// "content"} (OpenAI). human means user, and gpt, chatgpt, bing and bard assistant; messages of any other
// role are left out, but for a system message at the beginning. Error: no such object, no message left, the
// first one not from the user, or a content that is no text or empty; says what is wrong, not where.
Result<Conversation> ParseConversation(std::string_view row);

// {"id", "conversations": [{"role", "content"}, ...], other keys}, UTF-8 as it is, with "\n".
std::string ConversationLine(const Conversation& conversation);

}  // namespace dspark

// Conversations to prompt text, as the model's own template renders them.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// The templates we render exactly (targets.md §6), recognised from the model's Jinja text. A template we do
// not know is an error that names --raw as the way out, never a guess.
enum class ChatFormat { kChatMl, kSmolLm2 };
Result<ChatFormat> DetectChatFormat(const std::string& jinja_template);

// Ends with the opening of the assistant's turn when `add_generation_prompt`.
std::string RenderChat(ChatFormat format, const std::vector<ChatMessage>& messages,
                       bool add_generation_prompt);

}  // namespace dspark

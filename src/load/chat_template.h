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
// not know is an error that names --raw as the way out, never a guess. Qwen3's is long and exists in several
// wordings (most of it is about tools): it is known by the statements that decide what we render.
enum class ChatFormat { kChatMl, kSmolLm2, kQwen3 };
Result<ChatFormat> DetectChatFormat(const std::string& jinja_template);

// Ends with the opening of the assistant's turn when `add_generation_prompt`. Qwen3: assistant turns before
// the last user message lose their thoughts, later ones show them, be they empty; without `enable_thinking`
// the opened turn begins with an empty think block. The other formats know no thoughts.
std::string RenderChat(ChatFormat format, const std::vector<ChatMessage>& messages,
                       bool add_generation_prompt, bool enable_thinking = true);

}  // namespace dspark

// OpenAI's response_format, tools and tool_choice: what they make of a request's prompt and of its replies.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "grammar/token_trie.h"
#include "load/chat_template.h"
#include "serve/openai_request.h"

namespace dspark {

// Whether replies may hold tool calls.
bool OffersTools(const ApiRequest& request);

// Sets the constraint of the request's replies, if they have a form. `tokens`: of the model; null: it has no
// tokenizer. Error: a schema that is not supported, or a choice of a tool that is not there.
std::optional<ApiError> ConstrainReplies(std::shared_ptr<const TokenTrie> tokens, ApiRequest* request);

// The messages as the chat template takes them: tools are offered in a system message, calls and results are
// text (grammar/tool_text.h).
std::vector<ChatMessage> PlainMessages(const ApiRequest& request);

}  // namespace dspark

// What a request says about the form of its reply (OpenAI's response_format, tools and tool_choice), as a
// constraint on its tokens.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "grammar/token_trie.h"
#include "grammar/tool_text.h"
#include "verify/constraint.h"

namespace dspark {

struct ReplyForm {
  enum class Content { kText, kJsonObject, kJsonSchema };
  enum class Calls { kNone, kAuto, kRequired };

  Content content = Content::kText;
  nlohmann::ordered_json schema{};  // of kJsonSchema
  std::vector<ToolFunction> tools{};
  Calls calls = Calls::kNone;  // others need tools
  std::string function{};      // not empty: the only one that may be called, and once
  bool parallel_calls = true;  // up to 16 of them
};

// Null where the reply is free. Content may be text, or JSON that is the whole reply; with kAuto, calls may
// stand for it or follow the text, and once "<tool_call>" has begun, a call follows; with kRequired the reply
// is calls (tool_text.h). Error: one line; `*param` becomes the field of the request that is wrong.
Result<std::shared_ptr<const Constraint>> MakeResponseConstraint(const ReplyForm& form,
                                                                 std::shared_ptr<const TokenTrie> trie,
                                                                 std::string* param);

// Its grammar alone, of these bytes. Null where the reply is free.
Result<std::shared_ptr<const ByteGrammar>> MakeReplyGrammar(const ReplyForm& form, const ByteSet& available,
                                                            std::string* param);

}  // namespace dspark

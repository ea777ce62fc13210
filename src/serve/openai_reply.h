// Replies of OpenAI's two endpoints, whole and in chunks, as JSON text. Pure functions of what they are
// given.
//
// Beside OpenAI's fields every choice that has ended carries `timings` (docs/api.md), and every streamed
// choice says whether its token was drafted.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/tool_text.h"
#include "load/tokenizer.h"
#include "serve/openai_request.h"
#include "serve/reply_stream.h"

namespace dspark {

// What all parts of one reply have in common.
struct ReplyHeader {
  Endpoint endpoint = Endpoint::kChat;
  std::string id;       // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;  // Unix time, seconds
  std::string model;
  const Tokenizer* tokenizer = nullptr;  // null: tokens of logprobs have no text
  int n = 1;                             // choices of each prompt
  bool logprobs = false;
  bool include_usage = false;
  bool tool_calls = false;  // texts may hold calls (grammar/tool_text.h)
};

// One sequence of a call, as far as it has come.
struct ReplyChoice {
  std::string text;
  std::vector<TokenEvent> tokens;  // where log-probabilities are asked for
  FinishReason finish = FinishReason::kNone;
  std::string error;
  std::shared_ptr<const SequenceStats> stats;  // once it has ended

  void Add(TokenEvent event, bool keep_token);
};

// An end token stands for no text: OpenAI's logprobs leave it out.
bool CountsForLogprobs(const Tokenizer* tokenizer, const TokenEvent& event);

// OpenAI's name of how a choice ended.
const char* FinishName(const ReplyHeader& header, const ReplyChoice& choice);

// {"error": {message, type, param, code}}.
std::string ErrorBody(const ApiError& error);

// What a server that drains says to a request that comes late or does not end in time.
ApiError ShuttingDown();

// The whole reply. All choices have ended.
std::string ReplyBody(const ReplyHeader& header, std::span<const ReplyChoice> choices);

// Server-sent events, each "data: {…}\n\n".
class ReplyChunks {
 public:
  explicit ReplyChunks(ReplyHeader header);

  // Of a chat's choice, before all else.
  void Begin(int choice, std::string* out) const;
  // Nothing for a token that completes no text, unless log-probabilities are asked for. A call comes whole,
  // with its last token.
  void Token(int choice, const TokenEvent& event, std::string* out);
  // finish_reason and timings.
  void Finish(int choice, const TokenEvent& last, std::string* out);
  // After all choices: usage where asked for, then [DONE].
  void End(std::span<const ReplyChoice> choices, std::string* out) const;

  static void Failed(const ApiError& error, std::string* out);

 private:
  // One choice's calls, where there may be some.
  struct Calls {
    ToolCallParser parser;
    int count = 0;
  };
  void Text(int choice, const TokenEvent& event, std::string_view text, std::string* out);
  void Call(int choice, const ParsedCall& call, std::string* out);

  std::string prefix_;  // of every chunk, up to its choices
  std::string usage_;   // of every chunk: "usage" where it is asked for
  ReplyHeader header_;
  std::vector<Calls> calls_;     // by choice
  std::vector<size_t> offsets_;  // of completions' logprobs: text sent so far, by choice
};

}  // namespace dspark

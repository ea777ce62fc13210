// What the API knows of the model behind it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "grammar/token_trie.h"
#include "load/chat_template.h"
#include "load/tokenizer.h"
#include "serve/openai_request.h"

namespace dspark {

struct ServedModel {
  std::string name;                           // that requests give as `model`
  std::string alias{};                        // or this: what the server was asked for; empty: none
  const Tokenizer* tokenizer = nullptr;       // null: only prompts of token ids work
  std::shared_ptr<const TokenTrie> tokens{};  // of the tokenizer; null as it is
  std::optional<ChatFormat> chat_format;      // none: no chat
  std::optional<int32_t> bos;                 // raw prompts begin with it
  int vocab = 0;                              // tokens
  int context = 0;      // tokens of prompt and reply, at most: what the context and the KV pool hold
  int64_t created = 0;  // Unix time, seconds
};

// The prompts in token ids, as many as `request` has: one of a chat. Error: what the model cannot do, or a
// prompt that leaves no room for a reply.
std::optional<ApiError> EncodePrompts(const ServedModel& model, const ApiRequest& request,
                                      std::vector<std::vector<int32_t>>* prompts);

// The sequences that answer `request`: n of each prompt, prompt by prompt. The first of each has the seed
// that was asked for, the others have seeds made from it and their index; without one all are random.
std::vector<Request> MakeSequences(const ServedModel& model, const ApiRequest& request,
                                   const std::vector<std::vector<int32_t>>& prompts, uint64_t random_seed);

}  // namespace dspark

#include "serve/served_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "load/raw_prompt.h"
#include "serve/reply_form.h"

namespace dspark {
namespace {

ApiError Unsupported(std::string param, std::string message) {
  return {.message = std::move(message), .param = std::move(param), .code = "unsupported_value"};
}

std::optional<ApiError> EncodeChat(const ServedModel& model, const ApiRequest& request,
                                   std::vector<int32_t>* prompt) {
  if (!model.tokenizer || !model.chat_format) {
    return Unsupported("messages",
                       model.tokenizer
                           ? "the model has no chat template that dspark renders; use /v1/completions"
                           : "the model has no tokenizer; send token ids to /v1/completions");
  }
  const std::vector<ChatMessage> messages = PlainMessages(request);
  *prompt = model.tokenizer->Encode(RenderChat(*model.chat_format, messages, true), true);
  return {};
}

std::optional<ApiError> EncodeInput(const ServedModel& model, const PromptInput& input,
                                    std::vector<int32_t>* prompt) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&input)) {
    *prompt = *ids;
    return {};
  }
  if (!model.tokenizer) return Unsupported("prompt", "the model has no tokenizer; send token ids");
  *prompt = EncodeRawPrompt(*model.tokenizer, model.bos, std::get<std::string>(input), true);
  return {};
}

std::optional<ApiError> CheckPrompt(const ServedModel& model, const char* param,
                                    const std::vector<int32_t>& prompt) {
  if (prompt.empty())
    return ApiError{.message = "the prompt has no tokens; give at least one", .param = param};
  if (int(prompt.size()) >= model.context) {
    return ApiError{
        .message = fmt::format("the prompt has {} tokens and the model's context holds {}, the reply "
                               "included; shorten {}",
                               prompt.size(), model.context, param),
        .param = param,
        .code = "context_length_exceeded"};
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= model.vocab) {
      return ApiError{.message = fmt::format("token {} of the prompt is {}; the vocabulary has ids 0 to {}",
                                             i, prompt[i], model.vocab - 1),
                      .param = param};
    }
  }
  return {};
}

// SplitMix64's finaliser: seeds of neighbouring indices share nothing.
uint64_t SeedOf(uint64_t seed, uint64_t index) {
  if (index == 0) return seed;
  uint64_t x = seed + index * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace

std::optional<ApiError> EncodePrompts(const ServedModel& model, const ApiRequest& request,
                                      std::vector<std::vector<int32_t>>* prompts) {
  const bool chat = !request.messages.empty();
  prompts->resize(chat ? 1 : request.prompts.size());
  for (size_t i = 0; i < prompts->size(); ++i) {
    std::vector<int32_t>& prompt = (*prompts)[i];
    auto error = chat ? EncodeChat(model, request, &prompt) : EncodeInput(model, request.prompts[i], &prompt);
    if (!error) error = CheckPrompt(model, chat ? "messages" : "prompt", prompt);
    if (error) return error;
  }
  return {};
}

std::vector<Request> MakeSequences(const ServedModel& model, const ApiRequest& request,
                                   const std::vector<std::vector<int32_t>>& prompts, uint64_t random_seed) {
  std::vector<Request> sequences;
  for (size_t p = 0; p < prompts.size(); ++p) {
    for (int i = 0; i < request.n; ++i) {
      Request sequence = request.settings;
      sequence.prompt = prompts[p];
      sequence.reproducible = request.seed.has_value();
      sequence.seed = request.seed ? SeedOf(*request.seed, uint64_t(i))
                                   : SeedOf(random_seed, p * uint64_t(request.n) + uint64_t(i));
      const int room = model.context - int(prompts[p].size());
      sequence.max_tokens = std::min(request.max_tokens.value_or(room), room);
      sequences.push_back(std::move(sequence));
    }
  }
  return sequences;
}

}  // namespace dspark

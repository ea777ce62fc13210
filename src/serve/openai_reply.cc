#include "serve/openai_reply.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "load/utf8.h"

namespace dspark {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// JSON has no infinity; OpenAI's floor for tokens that cannot come is the same.
double Finite(float logprob) { return std::isfinite(logprob) ? double(logprob) : -9999.0; }

std::string_view BytesOf(const Tokenizer* tokenizer, int32_t token) {
  return tokenizer ? tokenizer->TokenBytes(token) : std::string_view();
}

// A token inside a character has no text of its own; two of these must not look alike.
std::string Name(const Tokenizer* tokenizer, int32_t token) {
  const std::string_view bytes = BytesOf(tokenizer, token);
  if (IsValidUtf8(bytes)) return std::string(bytes);
  std::string name = "bytes:";
  for (const char c : bytes) name += fmt::format("\\x{:02x}", uint8_t(c));
  return name;
}

ordered_json ChatLogprob(const Tokenizer* tokenizer, const TokenLogprob& logprob) {
  const std::string_view bytes = BytesOf(tokenizer, logprob.token);
  ordered_json list = ordered_json::array();
  for (const char c : bytes) list.push_back(uint8_t(c));
  return {
      {"token", ReplaceInvalidUtf8(bytes)}, {"logprob", Finite(logprob.logprob)}, {"bytes", std::move(list)}};
}

ordered_json ChatLogprobs(const Tokenizer* tokenizer, std::span<const TokenEvent> events) {
  ordered_json content = ordered_json::array();
  for (const TokenEvent& event : events) {
    if (!CountsForLogprobs(tokenizer, event)) continue;
    ordered_json token = ChatLogprob(tokenizer, event.logprob);
    token["top_logprobs"] = ordered_json::array();
    for (const TokenLogprob& best : event.top) token["top_logprobs"].push_back(ChatLogprob(tokenizer, best));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// `offset`: bytes of the reply before the first token; behind the last one on return.
ordered_json CompletionLogprobs(const Tokenizer* tokenizer, std::span<const TokenEvent> events,
                                size_t* offset) {
  ordered_json json{{"tokens", ordered_json::array()},
                    {"token_logprobs", ordered_json::array()},
                    {"top_logprobs", ordered_json::array()},
                    {"text_offset", ordered_json::array()}};
  for (const TokenEvent& event : events) {
    if (!CountsForLogprobs(tokenizer, event)) continue;
    json["tokens"].push_back(Name(tokenizer, event.token));
    json["token_logprobs"].push_back(Finite(event.logprob.logprob));
    ordered_json top = ordered_json::object();
    for (const TokenLogprob& best : event.top) top[Name(tokenizer, best.token)] = Finite(best.logprob);
    top[Name(tokenizer, event.token)] =
        Finite(event.logprob.logprob);  // the one that was taken is always there
    json["top_logprobs"].push_back(std::move(top));
    json["text_offset"].push_back(*offset);
    *offset += BytesOf(tokenizer, event.token).size();
  }
  return json;
}

ordered_json Logprobs(const ReplyHeader& header, std::span<const TokenEvent> events, size_t* offset) {
  if (!header.logprobs) return nullptr;
  return header.endpoint == Endpoint::kChat ? ChatLogprobs(header.tokenizer, events)
                                            : CompletionLogprobs(header.tokenizer, events, offset);
}

ordered_json Timings(const SequenceStats& s) {
  const int decoded = s.completion_tokens - 1;  // the first token belongs to the prompt's time
  return {{"prompt_tokens", s.prompt_tokens},
          {"cached_tokens", s.cached_tokens},
          {"prompt_ms", s.prompt_ms},
          {"completion_tokens", s.completion_tokens},
          {"decode_ms", s.decode_ms},
          {"decode_tok_per_s", s.decode_ms > 0 ? decoded * 1000.0 / s.decode_ms : 0.0},
          {"rounds", s.rounds},
          {"drafted", s.drafted},
          {"accepted", s.accepted},
          {"tau", s.Tau()},
          {"accepted_at", s.accepted_at},
          {"verified_at", s.verified_at},
          {"draft_ms", s.draft_ms},
          {"verify_ms", s.verify_ms}};
}

// The choices of one prompt share it: `n` of them count it once, as OpenAI does.
ordered_json Usage(std::span<const ReplyChoice> choices, int n) {
  int prompt = 0, cached = 0, completion = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!choices[i].stats) continue;
    if (int(i) % n == 0) prompt += choices[i].stats->prompt_tokens;
    if (int(i) % n == 0) cached += choices[i].stats->cached_tokens;
    completion += choices[i].stats->completion_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

const char* ObjectName(Endpoint endpoint, bool chunk) {
  if (endpoint == Endpoint::kCompletions) return "text_completion";
  return chunk ? "chat.completion.chunk" : "chat.completion";
}

// A reply that ends with calls stops for them.
const char* FinishName(FinishReason finish, bool has_calls) {
  return has_calls && finish == FinishReason::kStop ? "tool_calls" : FinishReasonName(finish);
}

// `number`: of the call in its choice.
ordered_json CallJson(const ReplyHeader& header, size_t choice, int number, const ParsedCall& call) {
  return {{"id", fmt::format("call_{}_{}_{}", header.id, choice, number)},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

// Of a chat; adds the calls' number to `*calls`.
ordered_json Message(const ReplyHeader& header, size_t choice, const std::string& text, int* calls) {
  ordered_json message{{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
  if (!header.tool_calls) return message;
  ToolCallParser parser;
  const ToolCallParser::Piece piece = parser.Add(text);
  const std::string content = piece.content + parser.Finish().content;
  message["content"] = content;
  for (const ParsedCall& call : piece.calls)
    message["tool_calls"].push_back(CallJson(header, choice, (*calls)++, call));
  if (*calls > 0 && content.empty()) message["content"] = nullptr;
  return message;
}

void Data(std::string_view json, std::string* out) { out->append("data: ").append(json).append("\n\n"); }

}  // namespace

void ReplyChoice::Add(TokenEvent event, bool keep_token) {
  text += event.text;
  if (event.finish != FinishReason::kNone) finish = event.finish, error = event.error, stats = event.stats;
  if (keep_token && event.token >= 0) tokens.push_back(std::move(event));
}

bool CountsForLogprobs(const Tokenizer* tokenizer, const TokenEvent& event) {
  if (event.token < 0) return false;
  return event.finish != FinishReason::kStop || !tokenizer || !tokenizer->IsSpecial(event.token);
}

const char* FinishName(const ReplyHeader& header, const ReplyChoice& choice) {
  return FinishName(choice.finish, header.tool_calls && !ToolCallParser().Add(choice.text).calls.empty());
}

ApiError ShuttingDown() {
  return {.status = 503,
          .message = "the server is shutting down; send the request again later",
          .type = "server_error",
          .code = "shutting_down"};
}

std::string ErrorBody(const ApiError& error) {
  const auto text = [](const std::string& value) {
    return value.empty() ? ordered_json() : ordered_json(value);
  };
  return Dump({{"error",
                {{"message", error.message},
                 {"type", error.type},
                 {"param", text(error.param)},
                 {"code", text(error.code)}}}});
}

std::string ReplyBody(const ReplyHeader& header, std::span<const ReplyChoice> choices) {
  const bool chat = header.endpoint == Endpoint::kChat;
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const ReplyChoice& choice = choices[i];
    ordered_json json{{"index", i}};
    int calls = 0;
    if (chat) {
      json["message"] = Message(header, i, choice.text, &calls);
    } else {
      json["text"] = choice.text;
    }
    size_t offset = 0;
    json["logprobs"] = Logprobs(header, choice.tokens, &offset);
    json["finish_reason"] = FinishName(choice.finish, calls > 0);
    json["timings"] = Timings(*choice.stats);
    list.push_back(std::move(json));
  }
  return Dump({{"id", header.id},
               {"object", ObjectName(header.endpoint, false)},
               {"created", header.created},
               {"model", header.model},
               {"choices", std::move(list)},
               {"usage", Usage(choices, header.n)}});
}

// Chunks are put together as text: this runs for every token of every stream.
ReplyChunks::ReplyChunks(ReplyHeader header)
    : prefix_(fmt::format("data: {{\"id\":{},\"object\":\"{}\",\"created\":{},\"model\":{},", Dump(header.id),
                          ObjectName(header.endpoint, true), header.created, Dump(header.model))),
      usage_(header.include_usage ? "\"usage\":null," : ""),
      header_(std::move(header)) {}

void ReplyChunks::Begin(int choice, std::string* out) const {
  if (header_.endpoint != Endpoint::kChat) return;
  fmt::format_to(std::back_inserter(*out),
                 "{}{}\"choices\":[{{\"index\":{},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},"
                 "\"logprobs\":null,\"finish_reason\":null}}]}}\n\n",
                 prefix_, usage_, choice);
}

void ReplyChunks::Token(int choice, const TokenEvent& event, std::string* out) {
  if (!header_.tool_calls) return Text(choice, event, event.text, out);
  calls_.resize(std::max(calls_.size(), size_t(choice) + 1));
  const ToolCallParser::Piece piece = calls_[size_t(choice)].parser.Add(event.text);
  Text(choice, event, piece.content, out);
  for (const ParsedCall& call : piece.calls) Call(choice, call, out);
}

void ReplyChunks::Call(int choice, const ParsedCall& call, std::string* out) {
  const int number = calls_[size_t(choice)].count++;
  ordered_json delta{{"index", number}};
  delta.update(CallJson(header_, size_t(choice), number, call));
  fmt::format_to(std::back_inserter(*out),
                 "{}{}\"choices\":[{{\"index\":{},\"delta\":{{\"tool_calls\":[{}]}},\"logprobs\":null,"
                 "\"finish_reason\":null}}]}}\n\n",
                 prefix_, usage_, choice, Dump(delta));
}

void ReplyChunks::Text(int choice, const TokenEvent& event, std::string_view text, std::string* out) {
  if (text.empty() && !(header_.logprobs && CountsForLogprobs(header_.tokenizer, event))) return;
  offsets_.resize(std::max(offsets_.size(), size_t(choice) + 1));
  const bool chat = header_.endpoint == Endpoint::kChat;
  fmt::format_to(std::back_inserter(*out),
                 "{}{}\"choices\":[{{\"index\":{},{}{}{},\"logprobs\":{},\"finish_reason\":null,"
                 "\"drafted\":{}}}]}}\n\n",
                 prefix_, usage_, choice, chat ? "\"delta\":{\"content\":" : "\"text\":", Dump(text),
                 chat ? "}" : "",
                 header_.logprobs ? Dump(Logprobs(header_, {&event, 1}, &offsets_[size_t(choice)])) : "null",
                 event.drafted);
}

void ReplyChunks::Finish(int choice, const TokenEvent& last, std::string* out) {
  bool has_calls = false;
  if (size_t(choice) < calls_.size()) {
    has_calls = calls_[size_t(choice)].count > 0;
    // What waited to become a call: text of no token of its own.
    Text(choice, {}, calls_[size_t(choice)].parser.Finish().content, out);
  }
  fmt::format_to(std::back_inserter(*out),
                 "{}{}\"choices\":[{{\"index\":{},{},\"logprobs\":null,\"finish_reason\":\"{}\","
                 "\"timings\":{}}}]}}\n\n",
                 prefix_, usage_, choice,
                 header_.endpoint == Endpoint::kChat ? "\"delta\":{}" : "\"text\":\"\"",
                 FinishName(last.finish, has_calls), Dump(Timings(*last.stats)));
}

void ReplyChunks::End(std::span<const ReplyChoice> choices, std::string* out) const {
  if (header_.include_usage) {
    fmt::format_to(std::back_inserter(*out), "{}\"choices\":[],\"usage\":{}}}\n\n", prefix_,
                   Dump(Usage(choices, header_.n)));
  }
  Data("[DONE]", out);
}

void ReplyChunks::Failed(const ApiError& error, std::string* out) { Data(ErrorBody(error), out); }

}  // namespace dspark

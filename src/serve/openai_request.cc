#include "serve/openai_request.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "load/printable.h"
#include "serve/json_fields.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr int kMostChoices = 128, kMostStops = 16, kMostLogprobs = 20, kMostPrompts = 128;
constexpr int kLongestReply = 1 << 20;

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string At(std::string_view path, const char* name, size_t i) {
  return fmt::format("{}{}[{}]", path, name, i);
}

// A string, or an array of parts of type text.
void ReadContent(const JsonFields& message, std::string* content, std::optional<ApiError>* error) {
  const json* value = message.Find("content");
  if (!value || !value->is_array()) return message.Read("content", content);
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string path = At(message.path(), "content", i);
    if (!(*value)[i].is_object())
      return message.Fail("content", "has a part that is no object", "invalid_type");
    const JsonFields part((*value)[i], path + ".", error);
    std::string type, text;
    part.Read("type", &type);
    part.Read("text", &text);
    if (!part.failed() && type != "text") {
      part.Fail("type",
                fmt::format("is \"{}\"; this model reads parts of type \"text\" only", Printable(type)),
                "unsupported_value");
    }
    *content += text;
  }
}

void ReadToolCalls(const JsonFields& message, std::vector<ToolCall>* calls, std::optional<ApiError>* error) {
  const json* array = message.Array("tool_calls");
  for (size_t i = 0; array && i < array->size() && !message.failed(); ++i) {
    const std::string path = At(message.path(), "tool_calls", i) + ".";
    if (!(*array)[i].is_object()) return message.Fail("tool_calls", "must hold objects", "invalid_type");
    const JsonFields call((*array)[i], path, error);
    ToolCall read;
    call.Read("id", &read.id);
    if (const json* function = call.Object("function")) {
      const JsonFields fields(*function, path + "function.", error);
      fields.Read("name", &read.name);
      fields.Read("arguments", &read.arguments);
    }
    if (read.name.empty()) call.Fail("function", "must name the function that was called");
    calls->push_back(std::move(read));
  }
}

ApiMessage ReadMessage(const JsonFields& fields, std::optional<ApiError>* error) {
  ApiMessage message;
  fields.Read("role", &message.role);
  if (message.role == "developer") message.role = "system";
  const bool known = message.role == "system" || message.role == "user" || message.role == "assistant" ||
                     message.role == "tool";
  if (!known) {
    fields.Fail("role",
                fmt::format("is \"{}\"; use system, user, assistant or tool", Printable(message.role)));
  }
  ReadContent(fields, &message.content, error);
  ReadToolCalls(fields, &message.tool_calls, error);
  fields.Read("tool_call_id", &message.tool_call_id);
  if (!fields.Find("content") && message.tool_calls.empty()) fields.Fail("content", "is missing", "missing");
  return message;
}

void ReadMessages(const JsonFields& body, ApiRequest* request, std::optional<ApiError>* error) {
  const json* messages = body.Array("messages");
  if (!messages || messages->empty()) {
    return body.Fail("messages", "is missing or empty; send at least one message", "missing");
  }
  for (size_t i = 0; i < messages->size() && !body.failed(); ++i) {
    const json& message = (*messages)[i];
    const std::string path = At("", "messages", i);
    if (!message.is_object()) return body.Fail(path.c_str(), "is no object", "invalid_type");
    request->messages.push_back(ReadMessage(JsonFields(message, path + ".", error), error));
  }
}

bool ReadIds(const json& array, std::vector<int32_t>* ids) {
  for (const json& element : array) {
    const auto id = WholeNumber(element);
    if (!id || *id < 0 || *id > INT32_MAX) return false;
    ids->push_back(int32_t(*id));
  }
  return true;
}

// A string, an array of strings, an array of token ids, or an array of arrays of ids.
void ReadPrompts(const JsonFields& body, std::vector<PromptInput>* prompts) {
  const json* value = body.Find("prompt");
  if (!value) return body.Fail("prompt", "is missing", "missing");
  if (value->is_string()) return void(prompts->push_back(value->get<std::string>()));
  constexpr const char* kForms =
      "must be a string, an array of strings, of token ids, or of arrays of token ids";
  if (!value->is_array() || value->empty()) return body.Fail("prompt", kForms, "invalid_type");
  std::vector<int32_t> ids;
  if (value->front().is_number()) {
    if (!ReadIds(*value, &ids)) return body.Fail("prompt", kForms, "invalid_type");
    return void(prompts->push_back(std::move(ids)));
  }
  if (value->size() > size_t(kMostPrompts)) {
    return body.Fail(
        "prompt", fmt::format("has {} prompts; at most {} go in one request", value->size(), kMostPrompts));
  }
  for (const json& element : *value) {
    ids.clear();
    if (element.is_string()) {
      prompts->push_back(element.get<std::string>());
    } else if (element.is_array() && ReadIds(element, &ids)) {
      prompts->push_back(ids);
    } else {
      return body.Fail("prompt", kForms, "invalid_type");
    }
  }
}

void ReadStop(const JsonFields& body, std::vector<std::string>* stop) {
  const json* value = body.Find("stop");
  if (!value) return;
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > size_t(kMostStops)) {
    return body.Fail("stop", fmt::format("has {} strings; at most {} are allowed", list.size(), kMostStops));
  }
  for (const json& element : list) {
    if (!element.is_string() || element.get_ref<const std::string&>().empty()) {
      return body.Fail("stop", "must be a string that is not empty, or an array of such", "invalid_type");
    }
    stop->push_back(element.get<std::string>());
  }
}

void ReadBias(const JsonFields& body, std::vector<std::pair<int32_t, float>>* bias) {
  const json* object = body.Object("logit_bias");
  if (!object) return;
  for (const auto& [key, value] : object->items()) {
    int32_t id = 0;
    const char* end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, id);
    const bool good = parsed.ec == std::errc() && parsed.ptr == end && id >= 0 && value.is_number();
    const double number = good ? value.get<double>() : 0;
    if (!good || !(number >= -100 && number <= 100)) {
      return body.Fail("logit_bias",
                       fmt::format("has \"{}\": {}; it must map token ids to numbers from -100 to 100",
                                   Printable(key), Printable(Dump(value))));
    }
    bias->push_back({id, float(number)});
  }
}

void ReadSampling(const JsonFields& body, Request* settings) {
  SamplingParams& s = settings->sampling;
  body.Read("temperature", 0, 100, &s.temperature);
  body.Read("top_p", 0, 1, &s.top_p);
  body.Read("top_k", -1, INT32_MAX, &s.top_k);
  if (s.top_k < 0) s.top_k = 0;  // -1 is others' word for off
  body.Read("min_p", 0, 1, &s.min_p);
  body.Read("repetition_penalty", 0.01, 100, &s.repetition_penalty);
  body.Read("presence_penalty", -2, 2, &s.presence_penalty);
  body.Read("frequency_penalty", -2, 2, &s.frequency_penalty);
  ReadBias(body, &s.logit_bias);
  ReadStop(body, &settings->stop);
  body.Read("ignore_eos", &settings->ignore_eos);
  body.Read("speculate", &settings->speculate);
}

void ReadMaxTokens(const JsonFields& body, std::optional<int>* max_tokens) {
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    int value = 0;
    body.Read(name, int64_t{1}, kLongestReply, &value);
    if (value > 0) *max_tokens = value;
  }
}

void ReadSeed(const JsonFields& body, std::optional<uint64_t>* seed) {
  const json* value = body.Find("seed");
  if (!value) return;
  if (value->is_number_unsigned()) return void(*seed = value->get<uint64_t>());
  const auto number = WholeNumber(*value);
  if (!number) return body.Fail("seed", "must be a whole number", "invalid_type");
  *seed = uint64_t(*number);
}

void ReadStream(const JsonFields& body, ApiRequest* request, std::optional<ApiError>* error) {
  body.Read("stream", &request->stream);
  const json* options = body.Object("stream_options");
  if (!options) return;
  if (!request->stream)
    return body.Fail("stream_options", "is given and stream is not; set \"stream\": true");
  JsonFields(*options, "stream_options.", error).Read("include_usage", &request->include_usage);
}

void ReadChatLogprobs(const JsonFields& body, int* top_logprobs) {
  bool logprobs = false;
  int top = 0;
  body.Read("logprobs", &logprobs);
  body.Read("top_logprobs", 0, kMostLogprobs, &top);
  if (top > 0 && !logprobs) body.Fail("top_logprobs", "needs \"logprobs\": true beside it");
  if (logprobs) *top_logprobs = top;
}

void ReadResponseFormat(const JsonFields& body, ResponseFormat* format, std::optional<ApiError>* error) {
  const json* object = body.Object("response_format");
  if (!object) return;
  const JsonFields fields(*object, "response_format.", error);
  std::string type;
  fields.Read("type", &type);
  if (type == "text") return;
  if (type != "json_object" && type != "json_schema") {
    return fields.Fail("type",
                       fmt::format("is \"{}\"; use text, json_object or json_schema", Printable(type)));
  }
  const json* own = fields.Object("schema");  // llama.cpp's form, of either type
  format->kind =
      type == "json_schema" || own ? ResponseFormat::Kind::kJsonSchema : ResponseFormat::Kind::kJsonObject;
  if (own) format->schema = Dump(*own);
  if (own || type == "json_object") return;
  const json* described = fields.Object("json_schema");
  if (!described) return fields.Fail("json_schema", "is missing", "missing");
  const JsonFields schema(*described, "response_format.json_schema.", error);
  schema.Read("name", &format->name);
  schema.Read("strict", &format->strict);
  if (const json* text = schema.Object("schema")) {
    format->schema = Dump(*text);
  } else {
    schema.Fail("schema", "is missing", "missing");
  }
}

void ReadTools(const JsonFields& body, std::vector<Tool>* tools, std::optional<ApiError>* error) {
  const json* array = body.Array("tools");
  for (size_t i = 0; array && i < array->size() && !body.failed(); ++i) {
    const std::string path = At("", "tools", i);
    if (!(*array)[i].is_object()) return body.Fail(path.c_str(), "is no object", "invalid_type");
    const JsonFields fields((*array)[i], path + ".", error);
    const json* function = fields.Object("function");
    if (!function) return fields.Fail("function", "is missing; tools are of type function", "missing");
    const JsonFields inner(*function, path + ".function.", error);
    Tool tool;
    inner.Read("name", &tool.name);
    inner.Read("description", &tool.description);
    inner.Read("strict", &tool.strict);
    if (const json* parameters = inner.Object("parameters")) tool.parameters = Dump(*parameters);
    if (tool.name.empty()) inner.Fail("name", "is missing", "missing");
    tools->push_back(std::move(tool));
  }
}

void ReadToolChoice(const JsonFields& body, std::optional<ToolChoice>* choice,
                    std::optional<ApiError>* error) {
  const json* value = body.Find("tool_choice");
  if (!value) return;
  if (value->is_object()) {
    const JsonFields fields(*value, "tool_choice.", error);
    ToolChoice named{.kind = ToolChoice::Kind::kFunction};
    if (const json* function = fields.Object("function"))
      JsonFields(*function, "tool_choice.function.", error).Read("name", &named.name);
    if (named.name.empty()) return fields.Fail("function", "must name a function", "missing");
    *choice = named;
    return;
  }
  std::string word;
  body.Read("tool_choice", &word);
  if (word == "auto") *choice = ToolChoice{};
  if (word == "none") *choice = ToolChoice{.kind = ToolChoice::Kind::kNone};
  if (word == "required") *choice = ToolChoice{.kind = ToolChoice::Kind::kRequired};
  if (!*choice) {
    body.Fail("tool_choice",
              fmt::format("is \"{}\"; use none, auto, required or an object that names a function",
                          Printable(word)));
  }
}

// A model that is to write properties in the schema's order needs it: read again, in order, which takes a
// time that is quadratic in an object's keys.
void KeepSchemaOrder(std::string_view bytes, const JsonFields& body, ApiRequest* request) {
  constexpr size_t kMostKeys = 10000;
  using Json = nlohmann::ordered_json;
  if (request->tools.empty() && request->response_format.kind != ResponseFormat::Kind::kJsonSchema) return;
  size_t keys = 0;
  const Json::parser_callback_t few_keys = [&](int, Json::parse_event_t event, Json&) {
    return event != Json::parse_event_t::key || ++keys <= kMostKeys;
  };
  const Json ordered = Json::parse(bytes, few_keys);
  if (keys > kMostKeys) return body.Fail("tools", fmt::format("come with more than {} keys", kMostKeys));
  if (request->response_format.kind == ResponseFormat::Kind::kJsonSchema) {
    const Json& format = ordered["response_format"];
    request->response_format.schema =
        (format.contains("schema") ? format["schema"] : format["json_schema"]["schema"]).dump();
  }
  for (size_t i = 0; i < request->tools.size(); ++i) {
    if (!request->tools[i].parameters.empty())
      request->tools[i].parameters = ordered["tools"][i]["function"]["parameters"].dump();
  }
}

void ReadChat(const JsonFields& body, ApiRequest* request, std::optional<ApiError>* error) {
  ReadMessages(body, request, error);
  ReadChatLogprobs(body, &request->settings.top_logprobs);
  ReadResponseFormat(body, &request->response_format, error);
  ReadTools(body, &request->tools, error);
  ReadToolChoice(body, &request->tool_choice, error);
  body.Read("parallel_tool_calls", &request->parallel_tool_calls);
}

void ReadCompletion(const JsonFields& body, ApiRequest* request) {
  ReadPrompts(body, &request->prompts);
  body.Read("logprobs", 0, kMostLogprobs, &request->settings.top_logprobs);
  bool echo = false;
  std::string suffix;
  int best_of = request->n;
  body.Read("echo", &echo);
  body.Read("suffix", &suffix);
  body.Read("best_of", int64_t{1}, kMostChoices, &best_of);
  if (echo)
    body.Fail("echo", "is not supported: the prompt is not repeated; leave it out", "unsupported_value");
  if (!suffix.empty()) body.Fail("suffix", "is not supported; leave it out", "unsupported_value");
  if (best_of != request->n) {
    body.Fail("best_of", "is not supported: every choice is returned; use n", "unsupported_value");
  }
  if (!request->max_tokens) request->max_tokens = 16;  // OpenAI's default
}

}  // namespace

std::optional<ApiError> ParseRequest(Endpoint endpoint, std::string_view bytes, ApiRequest* request) {
  json object;
  if (auto error = ParseObject(bytes, &object)) return error;
  std::optional<ApiError> error;
  const JsonFields body(object, "", &error);
  *request = {};
  body.Read("model", &request->model);
  body.Read("user", &request->user);
  body.Read("n", int64_t{1}, kMostChoices, &request->n);
  ReadSampling(body, &request->settings);
  ReadMaxTokens(body, &request->max_tokens);
  ReadSeed(body, &request->seed);
  ReadStream(body, request, &error);
  if (endpoint == Endpoint::kChat) {
    ReadChat(body, request, &error);
    if (!error) KeepSchemaOrder(bytes, body, request);
  } else {
    ReadCompletion(body, request);
  }
  return error;
}

std::optional<ApiError> ParseTokenize(std::string_view bytes, std::string* content) {
  json object;
  if (auto error = ParseObject(bytes, &object)) return error;
  std::optional<ApiError> error;
  const JsonFields body(object, "", &error);
  if (!body.Find("content")) body.Fail("content", "is missing; give the text to tokenize", "missing");
  body.Read("content", content);
  return error;
}

std::optional<ApiError> ParseDetokenize(std::string_view bytes, std::vector<int32_t>* tokens) {
  json object;
  if (auto error = ParseObject(bytes, &object)) return error;
  std::optional<ApiError> error;
  const JsonFields body(object, "", &error);
  const json* array = body.Array("tokens");
  if (!array || !ReadIds(*array, tokens))
    body.Fail("tokens", "must be an array of token ids", "invalid_type");
  return error;
}

}  // namespace dspark

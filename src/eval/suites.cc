#include "eval/suites.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/conversation.h"
#include "data/line_reader.h"
#include "eval/python_shuffle.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

struct KnownSuite {
  const char* name;
  const char* domain;
  int max_prompts;
};

// In the order of the paper's Table 1.
constexpr KnownSuite kKnown[] = {
    {"gsm8k", "math", 500},   {"math500", "math", 500},   {"aime25", "math", 30},
    {"mbpp", "code", 256},    {"humaneval", "code", 164}, {"livecodebench", "code", 500},
    {"mt-bench", "chat", 80}, {"alpaca", "chat", 500},    {"arena-hard-v2", "chat", 500}};

const KnownSuite* FindKnown(const std::string& name) {
  const auto* known = std::ranges::find_if(kKnown, [&](const KnownSuite& k) { return name == k.name; });
  return known == std::end(kKnown) ? nullptr : known;
}

constexpr std::string_view kEndings[] = {".jsonl", ".jsonl.gz"};

std::string NameOf(const std::string& path) {
  const std::string name = std::filesystem::path(path).filename().string();
  for (const std::string_view ending : kEndings) {
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  }
  return std::filesystem::path(name).stem().string();
}

Result<EvalPrompt> FromTurns(const Json& turns, const std::string& where) {
  EvalPrompt prompt;
  for (const Json& turn : turns) {
    if (!turn.is_string()) return MakeError("{}: turns must be texts", where);
    prompt.turns.push_back(turn.get<std::string>());
  }
  return prompt;
}

Result<EvalPrompt> FromMessages(const Json& messages, const std::string& where) {
  EvalPrompt prompt;
  for (const Json& message : messages) {
    const bool whole = message.is_object() && message.contains("role") && message["role"].is_string() &&
                       message.contains("content");
    if (!whole) return MakeError("{}: a message needs a role and a content", where);
    const std::string role = message["role"];
    if (role == "assistant") continue;
    auto text = ContentText(message["content"], fmt::format("the content of a message of role {}", role));
    if (!text) return MakeError("{}: {}", where, text.error().text);
    const std::string& content = *text;
    if (role == "user") {
      prompt.turns.push_back(content);
    } else if (role == "system" && prompt.system.empty() && prompt.turns.empty()) {
      prompt.system = content;
    } else {
      return MakeError("{}: a message of role {}; expected user and assistant, with system at most at first",
                       where, role);
    }
  }
  return prompt;
}

Result<EvalPrompt> FromConversation(const std::string& line, const std::string& where) {
  const auto conversation = ParseConversation(line);
  if (!conversation) return MakeError("{}: {}", where, conversation.error().text);
  EvalPrompt prompt;
  for (const ChatMessage& message : conversation->messages) {
    if (message.role == "system") prompt.system = message.content;
    if (message.role == "user") prompt.turns.push_back(message.content);
  }
  return prompt;
}

Result<EvalPrompt> ParsePrompt(const std::string& line, const std::string& where, int max_turns) {
  const Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return MakeError("{}: not a JSON object", where);
  const auto list = [&](const char* key) { return json.contains(key) && json[key].is_array(); };
  if (!list("turns") && !list("messages") && !list("conversations"))
    return MakeError("{}: none of turns, messages and conversations is a list there; give a file of prompts",
                     where);
  DSPARK_ASSIGN_OR_RETURN(EvalPrompt prompt, list("turns")      ? FromTurns(json["turns"], where)
                                             : list("messages") ? FromMessages(json["messages"], where)
                                                                : FromConversation(line, where));
  if (prompt.turns.empty()) return MakeError("{}: nothing is said by the user", where);
  if (max_turns > 0 && prompt.turns.size() > size_t(max_turns)) prompt.turns.resize(size_t(max_turns));
  return prompt;
}

}  // namespace

Result<Suite> ReadSuite(const std::string& path, const SuiteOptions& options) {
  const std::string name = NameOf(path);
  const KnownSuite* known = FindKnown(name);
  DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  std::vector<EvalPrompt> all;
  for (std::string line;;) {
    DSPARK_ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    DSPARK_ASSIGN_OR_RETURN(EvalPrompt prompt, ParsePrompt(line, reader.where(), options.max_turns));
    all.push_back(std::move(prompt));
  }
  if (all.empty()) return MakeError("{}: no prompts in it; give a file of JSON lines", path);
  const size_t most = options.max_prompts > 0 ? size_t(options.max_prompts)
                                              : (known ? size_t(known->max_prompts) : all.size());
  Suite suite{.name = name, .domain = known ? known->domain : name, .prompts = {}};
  if (all.size() <= most) {
    suite.prompts = std::move(all);
    return suite;
  }
  const std::vector<int> order = PythonShuffle(int(all.size()), options.seed);
  for (size_t i = 0; i < most; ++i) suite.prompts.push_back(std::move(all[size_t(order[i])]));
  return suite;
}

Result<std::vector<std::string>> SuiteFiles(const std::string& dir) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator i(dir, error), end; !error && i != end; i.increment(error)) {
    const std::string file = i->path().string();
    const auto ends_it = [&](std::string_view ending) { return file.ends_with(ending); };
    if (std::ranges::any_of(kEndings, ends_it)) files.push_back(file);
  }
  if (error) return MakeError("{}: cannot be read: {}", dir, error.message());
  if (files.empty()) return MakeError("{}: no .jsonl or .jsonl.gz files in it", dir);
  const auto rank = [](const std::string& file) {
    const KnownSuite* known = FindKnown(NameOf(file));
    return std::pair(known ? known : std::end(kKnown), file);
  };
  std::ranges::sort(files, {}, rank);
  return files;
}

}  // namespace dspark

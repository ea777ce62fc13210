// The prompts of a JSONL file of evaluation, as the model's own template renders them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/chat_template.h"
#include "load/model_files.h"

namespace dspark {

// The value, or the program's end with the error's line.
template <class T>
T Must(Result<T> result) {
  if (result) return std::move(result).value();
  std::fprintf(stderr, "%s\n", result.error().text.c_str());
  std::exit(1);
}

// The first `count` first turns of fewer than `longest` tokens.
inline std::vector<std::vector<int32_t>> ReadPrompts(const ModelFiles& files, const std::string& path,
                                                     int count, int longest) {
  std::ifstream in(path);
  std::vector<std::vector<int32_t>> prompts;
  const ChatFormat format = Must(DetectChatFormat(files.chat_template));
  for (std::string line; int(prompts.size()) < count && std::getline(in, line);) {
    const std::string text = nlohmann::json::parse(line)["turns"][0].get<std::string>();
    auto ids = files.tokenizer->Encode(RenderChat(format, {{"user", text}}, true), true);
    if (int(ids.size()) < longest) prompts.push_back(std::move(ids));
  }
  return prompts;
}

}  // namespace dspark

// Prompt sets of an evaluation: JSON lines, of DeepSpec's `turns` or OpenAI's `messages`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// One conversation: what the user says, turn by turn. The model answers each turn itself.
struct EvalPrompt {
  std::string system;  // empty: none
  std::vector<std::string> turns;
};

struct Suite {
  std::string name;    // of the file, without folder and ending
  std::string domain;  // math, code or chat; the name itself for a set we do not know
  std::vector<EvalPrompt> prompts;
};

struct SuiteOptions {
  int max_prompts = 0;     // 0: DeepSpec's number for its nine sets (drafters.md §9), else all
  int max_turns = 0;       // 0: all
  uint64_t seed = 980406;  // of the subsample
};

// The file is plain or gzip. A line is {"turns": ["…", …]}, {"messages": [{"role", "content"}, …]} or
// {"conversations": […]} as training data have it (data/conversation.h); assistant messages are left out,
// contents are texts or lists of text parts, other keys are ignored, empty lines too. Of more prompts than
// asked for, DeepSpec's subsample is taken: all shuffled as CPython does, then the first ones. Error: file,
// line and what is wrong there.
Result<Suite> ReadSuite(const std::string& path, const SuiteOptions& options);

// The *.jsonl and *.jsonl.gz files of a directory: DeepSpec's nine in the paper's order, then others by name.
// Error: there is none.
Result<std::vector<std::string>> SuiteFiles(const std::string& dir);

}  // namespace dspark

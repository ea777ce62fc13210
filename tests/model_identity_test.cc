// On the default model and real prompts: greedy replies with and without speculation are the same tokens.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "draft/prompt_lookup.h"
#include "engine/engine.h"
#include "load/chat_template.h"
#include "load/model_files.h"
#include "test_data.h"

namespace dspark::test {
namespace {

constexpr int kPromptsPerSet = 6, kReplyTokens = 48;

std::vector<std::string> Prompts(const std::string& set) {
  std::ifstream in(DataDir() + "/eval/" + set + ".jsonl");
  std::vector<std::string> prompts;
  for (std::string line; int(prompts.size()) < kPromptsPerSet && std::getline(in, line);) {
    std::string prompt = nlohmann::json::parse(line)["turns"][0].get<std::string>();
    if (prompt.size() < 3000) prompts.push_back(std::move(prompt));  // longer ones only cost time
  }
  return prompts;
}

TEST(ModelIdentity, GreedySpeculativeEqualsPlain) {
  DSPARK_SKIP_WITHOUT_MODEL();
  DSPARK_SKIP_WITHOUT(DataDir() + "/eval", "set DSPARK_DATA to the prompt sets");
  auto files = OpenModel(DefaultModelPath());
  ASSERT_TRUE(files.ok()) << files.error().text;
  ThreadPool pool(UsableCores());
  auto target = LoadTarget(*files, pool, {.max_context = 2048});
  ASSERT_TRUE(target.ok()) << target.error().text;
  BlockPool blocks((*target)->kv_layout(), 16 * 2048 / 32);
  PromptLookup lookup;
  // Rows priced as almost free: as many drafts as there are get verified.
  Engine plain(**target, blocks, nullptr, nullptr, {}, {.max_sequences = 8});
  Engine speculative(**target, blocks, &lookup, nullptr, CostTable({{1, 1.0}, {64, 1.01}}),
                     {.max_sequences = 8});

  const ChatFormat format = DetectChatFormat(files->chat_template).value();
  std::vector<Request> requests;
  for (const char* set : {"gsm8k", "math500", "aime25", "humaneval", "mbpp", "livecodebench", "mt-bench",
                          "alpaca", "arena-hard-v2"}) {
    for (const std::string& prompt : Prompts(set)) {
      Request request;
      request.prompt = files->tokenizer->Encode(RenderChat(format, {{"user", prompt}}, true), true);
      request.sampling.temperature = 0;
      request.max_tokens = kReplyTokens;
      requests.push_back(std::move(request));
    }
  }
  ASSERT_GE(requests.size(), 50u);
  std::vector<std::vector<int32_t>> replies[2];
  int drafted = 0, accepted = 0;
  for (const bool speculate : {false, true}) {
    Engine& engine = speculate ? speculative : plain;
    replies[speculate].resize(requests.size());
    for (const Request& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
    while (!engine.Idle()) {
      for (const TokenEvent& event : engine.Step()) {
        replies[speculate][event.sequence - 1].push_back(event.token);
        if (event.stats) drafted += event.stats->drafted, accepted += event.stats->accepted;
      }
    }
  }
  fmt::print("{} prompts: {} drafts verified, {} kept\n", requests.size(), drafted, accepted);
  EXPECT_GT(accepted, 100) << "too few drafts were kept for the comparison to mean anything";
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(replies[1][i], replies[0][i]) << "prompt " << i;
}

}  // namespace
}  // namespace dspark::test

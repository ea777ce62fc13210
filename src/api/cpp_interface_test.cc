// The C++ headers over the C ABI, which c_abi_test.cc tests: that they hand everything through.
#include <dspark/engine.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_dir.h"
#include "tiny_gguf.h"

namespace dspark::test {
namespace {

using abi0::Engine;
using abi0::Request;
using testing::HasSubstr;

class CppInterface : public testing::Test {
 protected:
  CppInterface() : model_(WriteTinyLlamaGguf(dir_.path(), 1)) {}
  abi0::Options Options() const {
    return {.model = model_, .policy = "fixed:3", .threads = 2, .keep_costs = false};
  }

  TempDir dir_;
  std::string model_;
};

struct Whole {
  std::string text;
  std::vector<int32_t> tokens;
  int finish = DSPARK_FINISH_NONE;
};

Whole RunToEnd(Engine& engine, abi0::RequestId id) {
  Whole reply;
  while (*engine.Step() > 0) continue;
  for (auto event = engine.Poll(id); event.value(); event = engine.Poll(id)) {
    reply.text += (*event)->text;
    reply.tokens.push_back((*event)->token);
    reply.finish = (*event)->finish;
  }
  return reply;
}

TEST_F(CppInterface, AReplyFromTextToText) {
  auto engine = Engine::Load(Options());
  ASSERT_TRUE(engine) << engine.error().text;
  const auto prompt = engine->ChatPrompt({{"user", "the cat"}});
  ASSERT_TRUE(prompt);
  EXPECT_EQ(*prompt,
            *engine->Tokenize("<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n", false, true));
  EXPECT_EQ(*engine->Detokenize(*engine->Tokenize("the cat", true, false), true), "the cat");
  EXPECT_EQ(*engine->Detokenize({}, true), "");

  const auto id = engine->Submit({.prompt = *prompt, .max_tokens = 20, .ignore_eos = true});
  ASSERT_TRUE(id) << id.error().text;
  const Whole reply = RunToEnd(*engine, *id);
  EXPECT_EQ(reply.tokens.size(), 20u);
  EXPECT_EQ(reply.finish, DSPARK_FINISH_LENGTH);
  EXPECT_EQ(reply.text, *engine->Detokenize(reply.tokens, true));
  EXPECT_EQ(engine->Timings(*id)->completion_tokens, 20);
  EXPECT_EQ(engine->Info()->vocab, 295);

  // Stops, bias and log-probabilities reach the engine.
  const auto stopped = engine->Submit({.prompt = *prompt,
                                       .max_tokens = 20,
                                       .stop = {reply.text.substr(4, 3)},
                                       .ignore_eos = true,
                                       .top_logprobs = 2});
  ASSERT_TRUE(stopped) << stopped.error().text;
  *engine->Step();
  const auto first = engine->Poll(*stopped);
  ASSERT_TRUE(first.value());
  EXPECT_EQ((*first)->top.size(), 2u);
  EXPECT_EQ((*first)->token, (*first)->top[0].token);
  EXPECT_EQ(RunToEnd(*engine, *stopped).finish, DSPARK_FINISH_STOP);
}

TEST_F(CppInterface, AReplyOfASchema) {
  auto engine = Engine::Load(Options());
  ASSERT_TRUE(engine) << engine.error().text;
  const auto id = engine->Submit({.prompt = {40, 41},
                                  .max_tokens = 60,
                                  .format = DSPARK_FORMAT_JSON_SCHEMA,
                                  .json_schema = R"({"enum": ["left", "right"]})"});
  ASSERT_TRUE(id) << id.error().text;
  EXPECT_THAT(RunToEnd(*engine, *id).text, testing::AnyOf("\"left\"", "\"right\""));
}

TEST_F(CppInterface, ErrorsAreValues) {
  const auto missing = Engine::Load({.model = dir_.path() + "/none.gguf"});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, DSPARK_ERROR_LOAD);
  EXPECT_THAT(missing.error().text, HasSubstr("none.gguf"));

  auto engine = Engine::Load(Options());
  ASSERT_TRUE(engine) << engine.error().text;
  EXPECT_EQ(engine->Submit({}).error().code, DSPARK_ERROR_PARAMETER);
  EXPECT_EQ(engine->Poll(5).error().code, DSPARK_ERROR_REQUEST);
  EXPECT_EQ(engine->Timings(5).error().code, DSPARK_ERROR_REQUEST);
  EXPECT_EQ(engine->Release(5).error().code, DSPARK_ERROR_REQUEST);
  const auto id = engine->Submit({.prompt = {40}});
  EXPECT_TRUE(engine->Cancel(*id));
  EXPECT_EQ(RunToEnd(*engine, *id).finish, DSPARK_FINISH_CANCELLED);

  Engine moved = std::move(engine).value();
  EXPECT_TRUE(moved.Info());
  EXPECT_EQ(engine->Info().error().code, DSPARK_ERROR_PARAMETER) << "moved from";
}

}  // namespace
}  // namespace dspark::test

#include "data/loss_mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "load/model_files.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

using nlohmann::json;

std::vector<ChatMessage> Messages(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& m : list) messages.push_back({m["role"], m["content"]});
  return messages;
}

TEST(GoldenLossMask, EqualsDeepSpecsOnAllConversations) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/chat_parse.json");
  std::ifstream file(test::GoldenDir() + "/drafters/chat_parse.json");
  const json golden = json::parse(file);
  const auto model = OpenModel(test::GoldenDir() + "/drafters/target_qwen3");
  ASSERT_TRUE(model.ok()) << model.error().text;
  const auto format = ChooseTrainTemplate("qwen", "", model->chat_template);
  ASSERT_TRUE(format.ok()) << format.error().text;
  ASSERT_EQ(golden["cases"].size(), 16u);
  for (const json& c : golden["cases"]) {
    SCOPED_TRACE(c["description"]);
    const TrainTokens tokens =
        TokenizeForTraining(*model->tokenizer, *format, Messages(c["conversations"]), c["max_length"]);
    EXPECT_EQ(tokens.ids, c["input_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(tokens.loss_mask, c["loss_mask"].get<std::vector<uint8_t>>());
    EXPECT_EQ(tokens.LossTokens() >= kMinLossTokens, c["kept_with_min_loss_tokens_14"].get<bool>());
  }
}

// The tiny tokenizer: a token per byte (3 + byte) and some merges; control tokens 0, 1 and 2.
class LossMaskTest : public testing::Test {
 protected:
  LossMaskTest() : files_(OpenModel(test::WriteTinyLlamaGguf(dir_.path(), 1))) {}

  // What the supervised tokens spell, a "|" between runs of them.
  std::string Supervised(const std::vector<ChatMessage>& messages, const TrainTemplate& format = {},
                         int max_length = 4096) const {
    const TrainTokens tokens = TokenizeForTraining(*files_->tokenizer, format, messages, max_length);
    EXPECT_EQ(tokens.ids.size(), tokens.loss_mask.size());
    std::string text;
    bool inside = false;
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      if (!inside && tokens.loss_mask[i] && !text.empty()) text += "|";
      inside = tokens.loss_mask[i] != 0;
      if (inside) text += files_->tokenizer->TokenBytes(tokens.ids[i]);
    }
    return text;
  }

  test::TempDir dir_;
  Result<ModelFiles> files_;
};

TEST_F(LossMaskTest, AnswersWithTheirEnds) {
  const std::vector<ChatMessage> two = {{"user", "what?"},
                                        {"assistant", "in the ü"},
                                        {"user", "<|im_start|>assistant\nno<|im_end|>"},
                                        {"assistant", ""}};
  EXPECT_EQ(Supervised(two), "in the ü<|im_end|>\n|no<|im_end|><|im_end|>\n|<|im_end|>\n");
  EXPECT_EQ(Supervised({{"user", "what?"}}), "");
}

TEST_F(LossMaskTest, CutInsideAnAnswer) {
  const std::vector<ChatMessage> messages = {{"user", "xyz"}, {"assistant", "0123456789"}};
  const TrainTokens whole = TokenizeForTraining(*files_->tokenizer, {}, messages, 4096);
  const int last = int(whole.ids.size());
  EXPECT_EQ(Supervised(messages, {}, last - 2), "0123456789");
  EXPECT_EQ(Supervised(messages, {}, last - 8), "0123");
  EXPECT_EQ(Supervised(messages, {}, 5), "");
}

TEST_F(LossMaskTest, SystemPrompts) {
  const auto ids = [&](const TrainTemplate& format, const std::vector<ChatMessage>& messages) {
    return files_->tokenizer->Decode(TokenizeForTraining(*files_->tokenizer, format, messages, 4096).ids,
                                     false);
  };
  const TrainTemplate qwen = *ChooseTrainTemplate("qwen", "", test::kTinyChatTemplate);
  const TrainTemplate own = *ChooseTrainTemplate("model", "be brief", test::kTinyChatTemplate);
  EXPECT_EQ(ids(qwen, {{"user", "a"}}),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
  EXPECT_EQ(ids(own, {{"user", "a"}}),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
  EXPECT_EQ(ids(qwen, {{"system", "s"}, {"user", "a"}}),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
  EXPECT_FALSE(ChooseTrainTemplate("llama", "", test::kTinyChatTemplate).ok());
  EXPECT_FALSE(ChooseTrainTemplate("model", "", "{{ something else }}").ok());
}

}  // namespace
}  // namespace dspark

#include "train/mask_token.h"

#include <gtest/gtest.h>

#include "test_data.h"

namespace dspark::test {
namespace {

// A model of ids 0..2 for a, b, c and control tokens behind them; "" is an id without a token.
ModelFiles Model(const std::vector<std::string>& control, int rows_behind = 0) {
  TokenizerSpec spec{.tokens = {"a", "b", "c"}, .merges = {}, .added = {}, .where = "test"};
  for (const std::string& text : control) {
    const int32_t id = int32_t(spec.tokens.size());
    spec.tokens.push_back("");
    if (!text.empty()) spec.added.push_back({.text = text, .id = id, .special = true});
  }
  ModelFiles model;
  model.config.vocab = int(spec.tokens.size()) + rows_behind;
  model.config.bos = 3;
  model.config.eos = {4};
  model.chat_template = "{{ '<|turn|>' + message }}";
  model.tokenizer = Tokenizer::Make(spec).value();
  return model;
}

int Choose(const ModelFiles& model) { return ChooseMaskToken(model).id; }

TEST(MaskToken, RowsBehindTheTokenizerComeFirst) {
  EXPECT_EQ(Choose(Model({"<bos>", "<end>", "<|reserved_0|>"}, 2)), 6);
  EXPECT_EQ(Choose(Model({"<bos>", "<end>", "<|reserved_0|>", ""})), 6);
}

TEST(MaskToken, ThenATokenInReserve) {
  EXPECT_EQ(Choose(Model({"<bos>", "<end>", "<file>", "<|Reserved_0|>", "<unused1>"})), 6);
  EXPECT_EQ(Choose(Model({"<bos>", "<end>", "<file>", "<mask>"})), 6);
}

TEST(MaskToken, ThenAControlTokenThatNothingUses) {
  EXPECT_EQ(Choose(Model({"<x>", "<end>", "<|turn|>", "<|endoftext|>", "<pad>", "<file>", "<repo>"})), 8);
}

TEST(MaskToken, ElseTheLastIdAndSaysSo) {
  const ModelFiles model = Model({"<x>", "<end>", "<|turn|>"});
  EXPECT_EQ(ChooseMaskToken(model).id, 5);
  EXPECT_NE(ChooseMaskToken(model).why.find("texts may contain"), std::string::npos);
  ModelFiles no_tokenizer;
  no_tokenizer.config.vocab = 10;
  EXPECT_EQ(Choose(no_tokenizer), 9);
}

TEST(GoldenMaskToken, IsTheRowThatTheGoldenDraftersUse) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  EXPECT_EQ(Choose(OpenModel(GoldenDir() + "/drafters/target_qwen3").value()), 511);
}

TEST(ModelMaskToken, OfTheDefaultModelIsNoText) {
  DSPARK_SKIP_WITHOUT_MODEL();
  const ModelFiles model = OpenModel(DefaultModelPath()).value();
  EXPECT_TRUE(model.tokenizer->IsSpecial(Choose(model)));
  EXPECT_EQ(ChooseMaskToken(model).why, "<repo_name>, a control token that the chat template does not use");
}

}  // namespace
}  // namespace dspark::test

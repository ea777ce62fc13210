#include "load/drafter_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "golden_tensors.h"
#include "load/drafter_tensors.h"
#include "load/model_files.h"
#include "test_data.h"

namespace dspark {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GoldenDrafterFiles : public testing::Test {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters/dspark_vanilla"); }
  static std::string Path(const std::string& name) { return test::GoldenDir() + "/drafters/" + name; }
  static DrafterFiles Open(const std::string& name) {
    auto files = OpenDrafter(Path(name));
    if (!files) CheckFailed(__FILE__, __LINE__, files.error().text);
    return std::move(files).value();
  }
};

TEST_F(GoldenDrafterFiles, DSparkOpens) {
  const DrafterFiles files = Open("dspark_vanilla");
  const DrafterConfig& c = files.config;
  EXPECT_EQ(c.kind, DrafterKind::kBlock);
  EXPECT_EQ(c.form, "DeepSpec directory");
  EXPECT_EQ(c.backbone.layers, 2);
  EXPECT_EQ(c.backbone.d_model, 64);
  EXPECT_EQ(c.backbone.head_dim, 16);
  EXPECT_EQ(c.backbone.vocab, 512);
  EXPECT_EQ(c.backbone.rope_theta, 1e6f);
  EXPECT_TRUE(c.backbone.qk_norm);
  EXPECT_EQ(c.target_width, 64);
  EXPECT_EQ(c.target_vocab, 512);
  EXPECT_EQ(c.target_layers, 8);
  EXPECT_THAT(c.taps, ElementsAre(1, 3, 5));
  EXPECT_EQ(c.block_size, 7);
  EXPECT_EQ(c.max_drafts(), 7);
  EXPECT_TRUE(c.anchor_first);
  EXPECT_EQ(c.mask_token, 511);
  EXPECT_EQ(c.markov, MarkovHead::kVanilla);
  EXPECT_EQ(c.markov_rank, 16);
  EXPECT_TRUE(c.confidence && c.confidence_with_markov);
  EXPECT_TRUE(c.own_embedding && c.own_head);
  EXPECT_TRUE(c.draft_to_target.empty());
  // Every tensor is found under the name of drafter_files.h with the bytes of the file.
  const test::GoldenTensors golden(Path("dspark_vanilla/model.safetensors"));
  const auto same = [&](const char* ours, const char* theirs) {
    const TensorView* tensor = files.weights->Find(ours);
    ASSERT_NE(tensor, nullptr) << ours;
    EXPECT_TRUE(std::ranges::equal(tensor->bytes, golden.Find(theirs).bytes)) << ours;
  };
  same("token_embd.weight", "embed_tokens.weight");
  same("output.weight", "lm_head.weight");
  same("enc.output_norm.weight", "hidden_norm.weight");
  same("output_norm.weight", "norm.weight");
  same("blk.1.ffn_norm.weight", "layers.1.post_attention_layernorm.weight");
  same("markov_w2.weight", "markov_head.markov_w2.weight");
  same("conf_proj.weight", "confidence_head.proj.weight");
}

TEST_F(GoldenDrafterFiles, TheOtherHeadsOpen) {
  const DrafterFiles gated = Open("dspark_gated"), rnn = Open("dspark_rnn"), dflash = Open("dflash");
  EXPECT_EQ(gated.config.markov, MarkovHead::kGated);
  EXPECT_THAT(gated.weights->Find("markov_gate.weight")->shape, ElementsAre(16, 80));
  EXPECT_EQ(rnn.config.markov, MarkovHead::kRnn);
  EXPECT_THAT(rnn.config.taps, ElementsAre(0, 1, 3, 5, 6));
  EXPECT_THAT(rnn.weights->Find("markov_joint.weight")->shape, ElementsAre(48, 96));
  EXPECT_EQ(dflash.config.markov, MarkovHead::kNone);
  EXPECT_FALSE(dflash.config.confidence);
  EXPECT_EQ(dflash.weights->Find("markov_w1.weight"), nullptr);
}

TEST_F(GoldenDrafterFiles, Eagle3Opens) {
  const DrafterFiles files = Open("eagle3");
  EXPECT_EQ(files.config.kind, DrafterKind::kEagle3);
  EXPECT_EQ(files.config.backbone.layers, 1);
  EXPECT_THAT(files.config.taps, ElementsAre(1, 2, 3, 5, 6));
  EXPECT_EQ(files.config.block_size, 7);
  EXPECT_EQ(files.config.mask_token, -1);
  EXPECT_THAT(files.weights->Find("blk.0.attn_q.weight")->shape, ElementsAre(64, 128));
  EXPECT_THAT(files.weights->Find("blk.0.attn_norm_2.weight")->shape, ElementsAre(64));
}

TEST_F(GoldenDrafterFiles, DraftersAreToldFromTargets) {
  for (const char* name : {"dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash", "eagle3"}) {
    EXPECT_TRUE(LooksLikeDrafter(Path(name))) << name;
  }
  EXPECT_FALSE(LooksLikeDrafter(Path("target_qwen3")));
  EXPECT_FALSE(LooksLikeDrafter(Path("")));
  EXPECT_FALSE(LooksLikeDrafter(Path("absent")));
}

TEST_F(GoldenDrafterFiles, ADrafterFitsItsTargetAndNoOther) {
  const DrafterFiles files = Open("dspark_vanilla");
  const auto target = OpenModel(Path("target_qwen3"));
  ASSERT_TRUE(target.ok()) << target.error().text;
  EXPECT_TRUE(CheckDrafterFits(files, target->config).ok());
  const auto error_with = [&](int ModelConfig::*field, int value) {
    ModelConfig other = target->config;
    other.*field = value;
    const Status status = CheckDrafterFits(files, other);
    return status.ok() ? "" : status.error().text;
  };
  EXPECT_THAT(error_with(&ModelConfig::vocab, 513),
              HasSubstr("a vocabulary of 512, but this target has 513"));
  EXPECT_THAT(error_with(&ModelConfig::d_model, 128), HasSubstr("of width 64, but this target has 128"));
  EXPECT_THAT(error_with(&ModelConfig::layers, 9), HasSubstr("with layers 8, but this target has 9"));
  DrafterFiles silent = Open("dspark_vanilla");
  silent.config.target_layers = 0;
  ModelConfig shallow = target->config;
  shallow.layers = 6;
  EXPECT_THAT(CheckDrafterFits(silent, shallow).error().text,
              HasSubstr("taps layer 5, but of this target's 6 layers only 0 to 4"));
  shallow.layers = 7;
  EXPECT_TRUE(CheckDrafterFits(silent, shallow).ok());
}

}  // namespace
}  // namespace dspark

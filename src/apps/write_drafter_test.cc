#include "apps/write_drafter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "apps/drafter_info.h"
#include "core/mapped_file.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_drafter.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using test::DrafterDirectory;
using ::testing::HasSubstr;

class WriteDrafterTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  DrafterFiles Made(const DrafterDirectory& d, const std::string& name = "in") const {
    return Open(d.Write(Path(name)));
  }
  static DrafterFiles Open(const std::string& path) {
    auto files = OpenDrafter(path);
    if (!files) CheckFailed(__FILE__, __LINE__, files.error().text);
    return std::move(files).value();
  }
  // `drafter` written to `name` and read again.
  DrafterFiles Again(const DrafterFiles& drafter, const std::string& name,
                     const DrafterWriteOptions& options) const {
    const Status status = WriteDrafter(drafter, options, Path(name));
    if (!status) CheckFailed(__FILE__, __LINE__, status.error().text);
    return Open(Path(name));
  }
  std::string ErrorOf(const DrafterFiles& drafter, const std::string& name,
                      const DrafterWriteOptions& options) const {
    const Status status = WriteDrafter(drafter, options, Path(name));
    EXPECT_FALSE(fs::exists(Path(name)));
    return status.ok() ? "" : status.error().text;
  }

  const test::TempDir dir_;
};

void ExpectSameConfig(const DrafterConfig& a, const DrafterConfig& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.taps, b.taps);
  EXPECT_EQ(a.target_layers, b.target_layers);
  EXPECT_EQ(a.target_vocab, b.target_vocab);
  EXPECT_EQ(a.target_width, b.target_width);
  EXPECT_EQ(a.block_size, b.block_size);
  EXPECT_EQ(a.anchor_first, b.anchor_first);
  EXPECT_EQ(a.mask_token, b.mask_token);
  EXPECT_EQ(a.markov, b.markov);
  EXPECT_EQ(a.markov_rank, b.markov_rank);
  EXPECT_EQ(a.confidence, b.confidence);
  EXPECT_EQ(a.confidence_with_markov, b.confidence_with_markov);
  EXPECT_EQ(a.confidence_temperatures, b.confidence_temperatures);
  EXPECT_EQ(a.norm_before_residual, b.norm_before_residual);
  EXPECT_EQ(a.draft_to_target, b.draft_to_target);
  EXPECT_EQ(a.backbone.layers, b.backbone.layers);
  EXPECT_EQ(a.backbone.d_ffn, b.backbone.d_ffn);
  EXPECT_EQ(a.backbone.vocab, b.backbone.vocab);
  EXPECT_EQ(a.backbone.rms_eps, b.backbone.rms_eps);
  EXPECT_EQ(a.backbone.rope_theta, b.backbone.rope_theta);
  EXPECT_EQ(a.backbone.qk_norm, b.backbone.qk_norm);
}

void ExpectSameTensors(const DrafterFiles& a, const DrafterFiles& b) {
  for (const auto& [name, shape] : DrafterShapes(a.config)) {
    const TensorView *x = a.weights->Find(name), *y = b.weights->Find(name);
    ASSERT_TRUE(x && y) << name;
    EXPECT_EQ(x->type, y->type) << name;
    EXPECT_TRUE(std::ranges::equal(x->bytes, y->bytes)) << name;
  }
}

TEST_F(WriteDrafterTest, DirectoryToGgufAndBack) {
  for (const MarkovHead head : {MarkovHead::kVanilla, MarkovHead::kGated, MarkovHead::kRnn}) {
    DrafterDirectory calibrated = test::DeepSpecDirectory(DrafterKind::kBlock, head);
    calibrated.config["confidence_temperatures"] = {1.5, 0.7, 1, 1.25, 2};
    const DrafterFiles source = Made(calibrated);
    ASSERT_EQ(source.config.confidence_temperatures, (std::vector<float>{1.5f, 0.7f, 1, 1.25f, 2}));
    const DrafterFiles gguf = Again(source, "x.gguf", {.with_embedding = true, .with_head = true});
    EXPECT_EQ(gguf.config.form, "GGUF dflash");
    ExpectSameConfig(source.config, gguf.config);
    ExpectSameTensors(source, gguf);
    fs::remove_all(Path("out"));
    const DrafterFiles back = Again(gguf, "out", {});
    EXPECT_EQ(back.config.form, "DeepSpec directory");
    ExpectSameConfig(source.config, back.config);
    ExpectSameTensors(source, back);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_.path()), {}), 3) << "something temporary is left";
}

TEST_F(WriteDrafterTest, Eagle3DirectoryAndZlabKeepTheirForm) {
  const DrafterFiles eagle3 = Made(test::DeepSpecDirectory(DrafterKind::kEagle3));
  const DrafterFiles copy = Again(eagle3, "eagle3", {});
  ExpectSameConfig(eagle3.config, copy.config);
  ExpectSameTensors(eagle3, copy);
  const DrafterFiles zlab = Made(test::ZlabDirectory());
  const DrafterFiles gguf = Again(zlab, "z.gguf", {});
  const DrafterFiles back = Again(gguf, "z", {});
  EXPECT_EQ(back.config.form, "DFlash directory");
  ExpectSameConfig(zlab.config, back.config);
  ExpectSameTensors(zlab, back);
}

// llama.cpp wants rows of q and k in pairs (2i, 2i + 1) in this architecture, and absolute ids.
TEST_F(WriteDrafterTest, Eagle3Gguf) {
  const DrafterFiles source = Made(test::SpecForgeDirectory());
  const DrafterFiles gguf = Again(source, "x.gguf", {});
  EXPECT_TRUE(gguf.config.backbone.rope_interleaved);
  EXPECT_EQ(gguf.config.draft_to_target, source.config.draft_to_target);
  EXPECT_EQ(gguf.config.taps, source.config.taps);
  EXPECT_TRUE(gguf.config.own_embedding && gguf.config.own_head);
  const auto row = [](const DrafterFiles& files, const char* name, size_t r) {
    const size_t bytes = 128 * sizeof(float);
    const auto all = files.weights->Find(name)->bytes.subspan(r * bytes, bytes);
    return std::vector<uint8_t>(all.begin(), all.end());
  };
  // Head 1 of four with 16 rows: its first two rows of a pair were 16 and 24.
  EXPECT_EQ(row(gguf, "blk.0.attn_q.weight", 16), row(source, "blk.0.attn_q.weight", 16));
  EXPECT_EQ(row(gguf, "blk.0.attn_q.weight", 17), row(source, "blk.0.attn_q.weight", 24));
  EXPECT_EQ(row(gguf, "blk.0.attn_k.weight", 18), row(source, "blk.0.attn_k.weight", 17));
  EXPECT_EQ(row(gguf, "blk.0.attn_v.weight", 17), row(source, "blk.0.attn_v.weight", 17));
  // Written once more, nothing moves again.
  ExpectSameTensors(gguf, Again(gguf, "y.gguf", {}));
}

TEST_F(WriteDrafterTest, EmbeddingAndHeadAreLeftOutWhenTheTargetHasThem) {
  const DrafterFiles source = Made(test::DeepSpecDirectory(DrafterKind::kBlock));
  const DrafterFiles bare = Again(source, "x.gguf", {});
  EXPECT_FALSE(bare.config.own_embedding || bare.config.own_head);
  // A drafter's weights do for a target's here: the same embedding and head, then another head.
  EXPECT_FALSE(Again(source, "x.gguf", {.target = source.weights.get()}).config.own_head);
  DrafterDirectory other = test::DeepSpecDirectory(DrafterKind::kBlock);
  other.Rename("lm_head.weight", "model.lm_head.weight");  // another place in the file: other random values
  const DrafterFiles target = Made(other, "other");
  const DrafterFiles kept = Again(source, "x.gguf", {.target = target.weights.get()});
  EXPECT_TRUE(kept.config.own_head);
  // A directory needs both and takes them from the target.
  EXPECT_THAT(ErrorOf(bare, "out", {}), HasSubstr("has no tensor output.weight of its own; give --target"));
  ExpectSameTensors(source, Again(bare, "out", {.target = source.weights.get()}));
}

TEST_F(WriteDrafterTest, MatricesAreQuantisedAndNormsAreNot) {
  const DrafterFiles source = Made(test::DeepSpecDirectory(DrafterKind::kBlock));
  for (const auto& [type, steps] : {std::pair(TensorType::kQ8_0, 127), std::pair(TensorType::kQ4_0, 8)}) {
    const DrafterFiles gguf = Again(source, "x.gguf", {.type = type});
    EXPECT_EQ(gguf.weights->Find("blk.1.attn_norm.weight")->type, TensorType::kF32);
    EXPECT_EQ(gguf.weights->Find("conf_proj.weight")->type, TensorType::kF32);
    EXPECT_EQ(gguf.weights->Find("markov_w1.weight")->type, TensorType::kF16);  // rows of 8
    const TensorView &down = *gguf.weights->Find("blk.1.ffn_down.weight"),
                     &exact = *source.weights->Find("blk.1.ffn_down.weight");
    EXPECT_EQ(down.type, type);
    std::vector<float> x(64 * 96), y(x.size());
    Dequantize(type, down.bytes.data(), int64_t(x.size()), x.data());
    Dequantize(TensorType::kF32, exact.bytes.data(), int64_t(y.size()), y.data());
    float worst = 0;
    for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(x[i] - y[i]));
    EXPECT_GT(worst, 0);
    EXPECT_LE(worst, 0.3f / float(steps) * 1.01f);
    const char* twice = type == TensorType::kQ8_0 ? "y4.gguf" : "y8.gguf";
    const TensorType another = type == TensorType::kQ8_0 ? TensorType::kQ4_0 : TensorType::kQ8_0;
    EXPECT_THAT(ErrorOf(gguf, twice, {.type = another}), HasSubstr("already and would be rounded twice"));
  }
  const DrafterFiles half = Again(source, "half", {.type = TensorType::kBF16});
  EXPECT_EQ(half.weights->Find("output_norm.weight")->type, TensorType::kBF16);
}

TEST_F(WriteDrafterTest, WhatAFormCannotHoldIsOneLine) {
  const DrafterFiles eagle3 = Made(test::DeepSpecDirectory(DrafterKind::kEagle3));
  EXPECT_THAT(ErrorOf(eagle3, "x.gguf", {}), HasSubstr("an Eagle3 drafter with norms on q and k; no GGUF"));
  EXPECT_THAT(ErrorOf(eagle3, "x.gguf", {.type = TensorType::kBF16}),
              HasSubstr("matrices cannot be BF16 there"));
  EXPECT_THAT(ErrorOf(eagle3, "x", {.type = TensorType::kQ8_0}), HasSubstr("use f32 or bf16"));
  EXPECT_THAT(ErrorOf(Made(test::SpecForgeDirectory()), "x", {}),
              HasSubstr("a reduced vocabulary; a directory"));
  EXPECT_THAT(ErrorOf(Made(test::MtpDirectory()), "x", {}), HasSubstr("an MTP layer"));
  const Status there = WriteDrafter(eagle3, {}, Path("in"));
  EXPECT_THAT(there.error().text, HasSubstr("in: is there already; remove it or choose another name"));
}

TEST_F(WriteDrafterTest, InfoSaysWhatItIs) {
  const std::string text = DescribeDrafter(Made(test::DeepSpecDirectory(DrafterKind::kBlock)));
  EXPECT_THAT(text,
              HasSubstr("DSpark, vanilla Markov head of rank 8, confidence head; from a DeepSpec directory"));
  EXPECT_THAT(text, HasSubstr("drafts up to 5 a round (block of 5, a slot predicts the token after it"));
  EXPECT_THAT(text, HasSubstr("targets of width 64 and vocabulary 295 with 10 layers; taps layers 1, 4, 6"));
  EXPECT_THAT(DescribeDrafter(Made(test::SpecForgeDirectory())), HasSubstr("drafts 100 of the target's ids"));
}

// The files of llama.cpp's converter, tensor for tensor.
TEST(GoldenWriteDrafter, GgufIsWhatLlamaCppsConverterWrites) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/gguf/dspark_vanilla.gguf");
  const test::TempDir dir;
  const std::string golden = test::GoldenDir() + "/drafters/", path = dir.path() + "/x.gguf";
  for (const std::string name : {"dspark_vanilla", "dflash"}) {
    const auto source = OpenDrafter(golden + name);
    const auto theirs_file = MappedFile::Open(golden + "gguf/" + name + ".gguf");
    ASSERT_TRUE(source.ok() && theirs_file.ok());
    const auto theirs = ParseGguf(theirs_file->bytes(), name);
    ASSERT_TRUE(theirs.ok());
    ASSERT_TRUE(WriteDrafter(*source, {.tokenizer = &*theirs}, path).ok());
    const auto file = MappedFile::Open(path);
    const auto ours = ParseGguf(file->bytes(), path);
    ASSERT_TRUE(ours.ok()) << ours.error().text;
    EXPECT_EQ(ours->tensors.size(), theirs->tensors.size());
    for (const TensorView& tensor : theirs->tensors) {
      const TensorView* mine = ours->FindTensor(tensor.name);
      ASSERT_NE(mine, nullptr) << tensor.name;
      EXPECT_EQ(mine->shape, tensor.shape);
      EXPECT_TRUE(std::ranges::equal(mine->bytes, tensor.bytes)) << tensor.name;
    }
    for (const auto& [key, value] : theirs->metadata) {
      if (key == "general.name" || key == "general.size_label") continue;
      const GgufValue* mine = ours->FindKey(key);
      ASSERT_NE(mine, nullptr) << key;
      EXPECT_EQ(mine->type, value.type) << key;
      EXPECT_TRUE(std::ranges::equal(mine->bytes, value.bytes)) << key;
      EXPECT_EQ(mine->strings, value.strings) << key;
    }
  }
}

}  // namespace
}  // namespace dspark

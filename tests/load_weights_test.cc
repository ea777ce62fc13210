// Weights quantised when a model is loaded: the rules against ggml's, what they cost a model, and what they
// refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden_tensors.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"
#include "model/weights.h"
#include "test_data.h"
#include "tiny_model.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

TEST(GoldenQuantize, LevelsAreGgmls) {
  DSPARK_SKIP_WITHOUT_GOLDEN("targets/gguf_blocks.safetensors");
  const GoldenTensors golden(GoldenDir() + "/targets/gguf_blocks.safetensors");
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1}) {
    const TensorTypeInfo& info = InfoOf(type);
    const auto source = golden.Floats(std::string(info.name) + ".source");
    const auto bytes = golden.Find(std::string(info.name) + ".bytes").bytes;
    ASSERT_GT(source.size(), 0u);
    for (size_t b = 0; b < source.size() / 32; ++b) {
      BlockLevels expected;
      info.levels(&bytes[b * size_t(info.block_bytes)], &expected);
      const BlockLevels got = QuantizeWeights(PackedFormatOf(type), &source[b * 32]);
      EXPECT_EQ(got.scale, expected.scale) << info.name << " block " << b;
      EXPECT_EQ(got.min, expected.min) << info.name << " block " << b;
      EXPECT_TRUE(std::ranges::equal(got.level, expected.level)) << info.name << " block " << b;
    }
  }
}

// A model loaded with its weights as asked; K/V in fp32, so that weights alone make the difference.
struct Loaded {
  Loaded(const std::string& path, std::optional<WeightFormat> weights, Isa isa = DetectIsa()) : pool(2, isa) {
    auto opened = OpenModel(path);
    if (!opened) CheckFailed(__FILE__, __LINE__, opened.error().text);
    files = std::move(opened).value();
    auto loaded = LoadTarget(files, pool,
                             {.max_rows = 160,
                              .max_logit_rows = 160,
                              .max_context = 192,
                              .kv_type = KvType::kF32,
                              .weights = weights});
    if (!loaded) CheckFailed(__FILE__, __LINE__, loaded.error().text);
    target = std::move(loaded).value();
    blocks = std::make_unique<BlockPool>(target->kv_layout(), 8);
  }
  size_t WeightBytes() const { return target->memory().weight_bytes; }

  // [tokens][V], one prefill.
  std::vector<std::vector<float>> Logits(const std::vector<int32_t>& tokens) {
    KvTable kv(*blocks);
    DSPARK_CHECK(kv.Reserve(int(tokens.size())));
    const Segment segment{.tokens = tokens, .position = 0, .kv = &kv};
    const ForwardOutput output = target->Forward({&segment, 1}, {});
    std::vector<std::vector<float>> rows;
    for (int r = 0; r < output.logit_rows; ++r) {
      const float* row = output.logits + size_t(r) * output.logits_stride;
      rows.emplace_back(row, row + files.config.vocab);
    }
    return rows;
  }

  ThreadPool pool;
  ModelFiles files;
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
};

std::string TargetDir() { return GoldenDir() + "/drafters/target_qwen3"; }

std::vector<int32_t> GreedyIds() {
  return GoldenTensors(GoldenDir() + "/drafters/infer_dspark_vanilla.safetensors")
      .Ints("greedy.plain_target_ids");
}

int ArgMaxOf(const std::vector<float>& row) {
  return int(std::max_element(row.begin(), row.end()) - row.begin());
}

// Greedy tokens one at a time behind the prompt.
std::vector<int32_t> Greedy(Loaded& model, std::span<const int32_t> prompt, size_t length) {
  KvTable kv(*model.blocks);
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  for (size_t done = 0; ids.size() < length; done = ids.size() - 1) {
    DSPARK_CHECK(kv.Reserve(int(ids.size())));
    const Segment segment{.tokens = {&ids[done], ids.size() - done},
                          .position = int(done),
                          .kv = &kv,
                          .logits_from = int(ids.size() - done) - 1};
    const ForwardOutput output = model.target->Forward({&segment, 1}, {});
    ids.push_back(ArgMax(model.pool.isa(), {output.logits, size_t(model.files.config.vocab)}));
  }
  return ids;
}

class GoldenQwen3 : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_GOLDEN("drafters/target_qwen3");
    if (!IsaSupported(GetParam()))
      GTEST_SKIP() << "*** SKIPPED: this processor has no " << IsaName(GetParam());
  }
};

// The reference's run: 40 prompt tokens, 96 greedy ones.
TEST_P(GoldenQwen3, DirectoryAndGgufDecodeAsTheReference) {
  const std::vector<int32_t> expected = GreedyIds();
  ASSERT_EQ(expected.size(), 136u);
  for (const std::string& path : {TargetDir(), GoldenDir() + "/drafters/gguf/target_qwen3.gguf"}) {
    Loaded model(path, {}, GetParam());
    EXPECT_EQ(Greedy(model, {expected.data(), 40}, expected.size()), expected) << path;
    EXPECT_THAT(model.files.config.eos, testing::UnorderedElementsAre(508, 510)) << path;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, GoldenQwen3, testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni),
                         [](const auto& isa) { return std::string(IsaName(isa.param)); });

double MeanKl(const std::vector<std::vector<float>>& p, const std::vector<std::vector<float>>& q) {
  double sum = 0;
  for (size_t r = 0; r < p.size(); ++r) {
    const float log_p = LogSumExp(DetectIsa(), p[r]), log_q = LogSumExp(DetectIsa(), q[r]);
    for (size_t v = 0; v < p[r].size(); ++v) {
      const double lp = p[r][v] - log_p;
      sum += std::exp(lp) * (lp - (q[r][v] - log_q));
    }
  }
  return sum / double(p.size());
}

// A trained model of width 64: rounding weighs heavier here than in any model one would use.
TEST(GoldenWeights, QuantisedAtLoadStaysClose) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/target_qwen3");
  const std::vector<int32_t> ids = GreedyIds();
  Loaded exact(TargetDir(), {});
  const auto expected = exact.Logits(ids);
  const struct {
    const char* name;
    double kl;
    int agree;     // of 136 rows
    double bytes;  // of fp32's
  } cases[] = {
      {"f32", 0, 136, 1}, {"bf16", 1e-5, 135, 0.5}, {"int8", 2e-4, 134, 0.27}, {"int4", 0.01, 130, 0.18}};
  for (const auto& c : cases) {
    Loaded model(TargetDir(), WeightFormatFromName(c.name));
    const auto logits = model.Logits(ids);
    int agree = 0;
    for (size_t r = 0; r < logits.size(); ++r) agree += ArgMaxOf(logits[r]) == ArgMaxOf(expected[r]);
    const double kl = MeanKl(expected, logits),
                 bytes = double(model.WeightBytes()) / double(exact.WeightBytes());
    fmt::print("{}: mean KL {:.2e}, top-1 agreement {}/{}, {:.3f} of the bytes\n", c.name, kl, agree,
               logits.size(), bytes);
    EXPECT_LE(kl, c.kl) << c.name;
    EXPECT_GE(agree, c.agree) << c.name;
    EXPECT_LE(bytes, c.bytes) << c.name;
  }
}

class LoadedWeights : public testing::Test {
 protected:
  std::string File(const TinyLlama& shape) { return WriteTinyLlamaGguf(dir_.path(), 1, shape); }
  // Logits of a short text.
  std::vector<std::vector<float>> Logits(const TinyLlama& shape, std::optional<WeightFormat> weights) {
    return Loaded(File(shape), weights).Logits({5, 90, 17, 200, 33, 8});
  }
  std::string ErrorOf(const TinyLlama& shape, WeightFormat weights) {
    auto files = OpenModel(File(shape)).value();
    ThreadPool pool(1);
    const auto loaded = LoadTarget(files, pool, {.weights = weights});
    return loaded.ok() ? "" : loaded.error().text;
  }
  TempDir dir_;
};

TEST_F(LoadedWeights, NamesAreTheFlags) {
  EXPECT_EQ(WeightFormatFromName("f32"), WeightFormat::kF32);
  EXPECT_EQ(WeightFormatFromName("bf16"), WeightFormat::kBf16);
  EXPECT_EQ(WeightFormatFromName("int8"), WeightFormat::kInt8);
  EXPECT_TRUE(WeightFormatFromName("int4").has_value());
  EXPECT_FALSE(WeightFormatFromName("q8_0").has_value());
  EXPECT_FALSE(WeightFormatFromName("").has_value());
}

// Quantising fp32 at load gives what a file quantised by the same rule gives.
TEST_F(LoadedWeights, EqualAFileOfThatType) {
  const TinyLlama plain{.matrices = TensorType::kF32, .embedding = TensorType::kF32};
  const TinyLlama bf16{.matrices = TensorType::kBF16, .embedding = TensorType::kBF16};
  const TinyLlama q8{.matrices = TensorType::kQ8_0, .embedding = TensorType::kQ8_0};
  EXPECT_EQ(Logits(plain, WeightFormat::kBf16), Logits(bf16, {}));
  EXPECT_EQ(Logits(plain, WeightFormat::kInt8), Logits(q8, {}));
  EXPECT_EQ(Logits(plain, WeightFormat::kF32), Logits(plain, {}));
  EXPECT_NE(Logits(plain, WeightFormat::kInt8), Logits(plain, {}));
}

TEST_F(LoadedWeights, QuantisedFilesMayBeWidened) {
  const TinyLlama q4{.matrices = TensorType::kQ4_1, .embedding = TensorType::kQ8_0};
  Loaded as_file(File(q4), {});
  EXPECT_EQ(Logits(q4, WeightFormat::kInt4Min), Logits(q4, {}));  // nothing to do
  Loaded wide(File(q4), WeightFormat::kF32), eight(File(q4), WeightFormat::kInt8);
  EXPECT_GT(wide.WeightBytes(), 3 * as_file.WeightBytes());
  EXPECT_GT(eight.WeightBytes(), as_file.WeightBytes());
  EXPECT_LT(eight.WeightBytes(), wide.WeightBytes() / 3);
}

TEST_F(LoadedWeights, EightBitsAreNotRoundedToFourAgain) {
  const TinyLlama q8{.matrices = TensorType::kQ8_0, .embedding = TensorType::kQ8_0};
  const std::string error = ErrorOf(q8, WeightFormat::kInt4Min);
  EXPECT_THAT(
      error, HasSubstr("tiny.gguf: tensor blk.0.attn_q.weight is Q8_0; to 4 bits it would be rounded twice"));
  EXPECT_EQ(error.find('\n'), std::string::npos);
  EXPECT_EQ(ErrorOf(q8, WeightFormat::kInt8), "");
}

// Rows of 48 and of 80 values are no whole blocks: those matrices stay as they are, the others are quantised.
TEST_F(LoadedWeights, RowsOfNoWholeBlocksStay) {
  TinyLlama shape{.d_model = 48,
                  .head_dim = 16,
                  .d_ffn = 80,
                  .matrices = TensorType::kF32,
                  .embedding = TensorType::kF32};
  EXPECT_EQ(Loaded(File(shape), WeightFormat::kInt8).WeightBytes(),
            Loaded(File(shape), {}).WeightBytes() - size_t(2 * 48 * 64 * 4) + size_t(2 * 48 * 64 * 34 / 32));
  EXPECT_NE(Logits(shape, WeightFormat::kInt8), Logits(shape, {}));
  shape.heads = 3, shape.kv_heads = 3;
  EXPECT_EQ(Logits(shape, WeightFormat::kInt8), Logits(shape, {}));
}

}  // namespace
}  // namespace dspark::test

// Contract 2: a row's logits and taps are the same bits whether its tokens are run one by one, in chunks, or
// among the rows of other sequences; and whatever the number of workers and the KV block size.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "tiny_model.h"

namespace dspark::test {
namespace {

constexpr int kTokens = 120;

struct Recorded {
  std::vector<float> logits, taps;  // of one row
};

std::vector<int32_t> RandomTokens(uint32_t seed, int n, int vocab) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(n);
  for (auto& token : tokens) token = int32_t(random() % uint32_t(vocab));
  return tokens;
}

constexpr int kTapLayers[] = {-1, 0, 1};

Recorded RowOf(const TinyModel& model, const ForwardOutput& output, int row) {
  const float* logits = output.logits + row * output.logits_stride;
  const float* taps = output.taps + row * output.taps_stride;
  return {{logits, logits + model.vocab()}, {taps, taps + output.taps_stride}};
}

bool SameBits(const Recorded& a, const Recorded& b) {
  return a.logits.size() == b.logits.size() && a.taps.size() == b.taps.size() &&
         std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) == 0 &&
         std::memcmp(a.taps.data(), b.taps.data(), a.taps.size() * sizeof(float)) == 0;
}

// The definition: one token at a time, alone.
std::vector<Recorded> OneByOne(TinyModel& model, const std::vector<int32_t>& tokens) {
  KvTable kv(*model.blocks);
  std::vector<Recorded> rows;
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_TRUE(kv.Reserve(int(i) + 1));
    const Segment segment{.tokens = {&tokens[i], 1}, .position = int(i), .kv = &kv};
    rows.push_back(RowOf(model, model.target->Forward({&segment, 1}, kTapLayers), 0));
  }
  return rows;
}

// Three sequences advance by random numbers of rows in random company; now and then a few rows are run with
// wrong tokens and rolled back, as a rejected draft is.
void CheckMixedBatches(TinyModel& model, const std::vector<std::vector<int32_t>>& sequences,
                       const std::vector<std::vector<Recorded>>& expected, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<KvTable> kv;
  for (size_t s = 0; s < sequences.size(); ++s) kv.emplace_back(*model.blocks);
  std::vector<int> done(sequences.size());
  const auto wrong = RandomTokens(seed + 1, 32, model.vocab());
  while (done != std::vector<int>(sequences.size(), kTokens)) {
    std::vector<Segment> segments;
    std::vector<size_t> owners;
    std::vector<bool> rolled_back;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int rows = std::min(int(random() % 18), kTokens - done[s]);
      if (rows == 0) continue;
      const bool reject = random() % 4 == 0;
      EXPECT_TRUE(kv[s].Reserve(done[s] + rows));
      const int32_t* tokens = reject ? wrong.data() : &sequences[s][done[s]];
      segments.push_back({.tokens = {tokens, size_t(rows)}, .position = done[s], .kv = &kv[s]});
      owners.push_back(s);
      rolled_back.push_back(reject);
    }
    if (segments.empty()) continue;
    const ForwardOutput output = model.target->Forward(segments, kTapLayers);
    int row = 0;
    for (size_t i = 0; i < segments.size(); ++i) {
      const size_t s = owners[i];
      for (size_t k = 0; k < segments[i].tokens.size(); ++k, ++row) {
        if (!rolled_back[i]) {
          ASSERT_TRUE(SameBits(RowOf(model, output, row), expected[s][done[s] + k]))
              << "sequence " << s << " position " << done[s] + k << " in a batch of " << segments.size();
        }
      }
      if (!rolled_back[i]) done[s] += int(segments[i].tokens.size());
      kv[s].Truncate(done[s]);
    }
  }
}

// Mixed batches equal single steps, with other threads and other KV blocks too.
void CheckInvariance(TinyModelOptions options) {
  if (!IsaSupported(options.isa))
    GTEST_SKIP() << "*** SKIPPED: this processor has no " << IsaName(options.isa);
  options.max_taps = 3;
  std::vector<std::vector<int32_t>> sequences;
  std::vector<std::vector<Recorded>> expected;
  {
    TinyModel model(options);
    for (uint32_t s = 0; s < 3; ++s) {
      sequences.push_back(RandomTokens(s + 10, kTokens, model.vocab()));
      expected.push_back(OneByOne(model, sequences[s]));
    }
    for (uint32_t seed = 0; seed < 4; ++seed) CheckMixedBatches(model, sequences, expected, seed);
  }
  options.threads = 3;
  options.block_tokens = 64;
  TinyModel other(options);
  CheckMixedBatches(other, sequences, expected, 77);
}

class RowInvariance : public testing::TestWithParam<std::tuple<Isa, TensorType, KvType>> {};

TEST_P(RowInvariance, MixedBatchesEqualSingleSteps) {
  const auto [isa, type, kv_type] = GetParam();
  TinyModelOptions options{.isa = isa, .kv_type = kv_type};
  options.shape.matrices = type;
  options.shape.embedding = type == TensorType::kF32 ? TensorType::kF32 : TensorType::kQ8_0;
  CheckInvariance(options);
}

class Qwen3RowInvariance : public testing::TestWithParam<std::tuple<Isa, WeightFormat>> {};

TEST_P(Qwen3RowInvariance, MixedBatchesEqualSingleSteps) {
  const auto [isa, weights] = GetParam();
  CheckInvariance({.shape = {.architecture = "qwen3",
                             .head_dim = 32,  // 4 heads of 32 beside a width of 64
                             .matrices = TensorType::kF32,
                             .embedding = TensorType::kF32,
                             .tied = false},
                   .isa = isa,
                   .weights = weights});
}

// Segments longer than the slices of a pass (128 rows) and than the chunks of attention (256 positions),
// beside others, at positions on both sides of a chunk's end.
class LongSegments : public testing::TestWithParam<Isa> {};

TEST_P(LongSegments, EqualSingleSteps) {
  if (!IsaSupported(GetParam())) {
    GTEST_SKIP() << "*** SKIPPED: this processor has no " << IsaName(GetParam());
  }
  TinyModelOptions options{.isa = GetParam(), .max_context = 640, .max_rows = 600, .max_taps = 3};
  options.shape.max_context = options.max_context;
  TinyModel model(options);
  std::vector<std::vector<int32_t>> sequences;
  std::vector<std::vector<Recorded>> expected;
  std::vector<KvTable> kv;
  for (const int n : {310, 560, 30}) {
    sequences.push_back(RandomTokens(uint32_t(n), n, model.vocab()));
    expected.push_back(OneByOne(model, sequences.back()));
    kv.emplace_back(*model.blocks);
    ASSERT_TRUE(kv.back().Reserve(n));
  }
  std::vector<int> done(sequences.size());
  for (const std::vector<int>& rows : {std::vector{300, 45, 7}, {5, 512, 20}, {5, 3, 3}}) {
    std::vector<Segment> segments;
    for (size_t s = 0; s < rows.size(); ++s) {
      segments.push_back({.tokens = std::span(sequences[s]).subspan(done[s], rows[s]),
                          .position = done[s],
                          .kv = &kv[s],
                          .logits_from = std::max(0, rows[s] - 20)});
    }
    const ForwardOutput output = model.target->Forward(segments, kTapLayers);
    int row = 0, logit_row = 0;
    for (size_t s = 0; s < rows.size(); ++s) {
      for (int k = 0; k < rows[s]; ++k, ++row) {
        const Recorded& want = expected[s][done[s] + k];
        const bool has_logits = k >= segments[s].logits_from;
        const float* taps = output.taps + row * output.taps_stride;
        ASSERT_EQ(std::memcmp(taps, want.taps.data(), want.taps.size() * sizeof(float)), 0)
            << "taps of sequence " << s << " position " << done[s] + k;
        if (!has_logits) continue;
        const float* logits = output.logits + logit_row++ * output.logits_stride;
        ASSERT_EQ(std::memcmp(logits, want.logits.data(), want.logits.size() * sizeof(float)), 0)
            << "logits of sequence " << s << " position " << done[s] + k;
      }
      done[s] += rows[s];
    }
    EXPECT_EQ(output.logit_rows, logit_row);
  }
}

std::string CaseName(const testing::TestParamInfo<std::tuple<Isa, TensorType, KvType>>& info) {
  const auto [isa, type, kv_type] = info.param;
  return fmt::format("{}_{}{}", IsaName(isa), InfoOf(type).name, kv_type == KvType::kF32 ? "_kv_f32" : "");
}

INSTANTIATE_TEST_SUITE_P(All, LongSegments, testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni),
                         [](const auto& isa) { return std::string(IsaName(isa.param)); });

const auto kIsas = testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni);

INSTANTIATE_TEST_SUITE_P(All, RowInvariance,
                         testing::Combine(kIsas,
                                          testing::Values(TensorType::kF32, TensorType::kF16,
                                                          TensorType::kBF16, TensorType::kQ4_0,
                                                          TensorType::kQ4_1, TensorType::kQ8_0),
                                          testing::Values(KvType::kF16)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Fp32Kv, RowInvariance,
                         testing::Combine(kIsas, testing::Values(TensorType::kF32),
                                          testing::Values(KvType::kF32)),
                         CaseName);

std::string WeightsName(const testing::TestParamInfo<std::tuple<Isa, WeightFormat>>& info) {
  const auto [isa, weights] = info.param;
  return fmt::format("{}_{}", IsaName(isa),
                     weights == WeightFormat::kF32    ? "f32"
                     : weights == WeightFormat::kInt8 ? "int8"
                                                      : "int4");
}
INSTANTIATE_TEST_SUITE_P(All, Qwen3RowInvariance,
                         testing::Combine(kIsas, testing::Values(WeightFormat::kF32, WeightFormat::kInt8,
                                                                 WeightFormat::kInt4Min)),
                         WeightsName);

}  // namespace
}  // namespace dspark::test

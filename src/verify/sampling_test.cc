#include "verify/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "core/rng.h"

namespace dspark {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::HasSubstr;

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

std::vector<float> RandomLogits(int vocab, uint64_t seed, float spread = 8) {
  std::vector<float> logits;
  for (int i = 0; i < vocab; ++i)
    logits.push_back(spread * UniformFloat(seed, uint64_t(i), Purpose::kTest) - 1);
  return logits;
}

Distribution Serve(Isa isa, std::vector<float> logits, const SamplingParams& params,
                   const TokenHistory* history = nullptr) {
  Distribution out;
  ServedDistribution(isa, logits, params, history, &out);
  return out;
}

// The definition, by full sorts in double. Returns token → probability.
std::map<int32_t, double> Brute(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  if (params.Greedy()) return {{order[0], 1.0}};
  if (params.top_k > 0 && size_t(params.top_k) < order.size()) order.resize(size_t(params.top_k));
  const auto weight = [&](int32_t t) {
    return std::exp((double(logits[size_t(t)]) - double(logits[size_t(order[0])])) /
                    double(params.temperature));
  };
  const auto total = [&] {
    double sum = 0;
    for (int32_t t : order) sum += weight(t);
    return sum;
  };
  if (params.top_p < 1) {
    const double all = total();
    double mass = 0;
    size_t kept = 0;
    while (kept < order.size() && (kept == 0 || mass < double(params.top_p)))
      mass += weight(order[kept++]) / all;
    order.resize(kept);
  }
  std::erase_if(order, [&](int32_t t) { return weight(t) < double(params.min_p); });
  std::map<int32_t, double> result;
  const double sum = total();
  for (int32_t t : order) result[t] = weight(t) / sum;
  return result;
}

// Equal but for tokens that rounding may move across a boundary: those must be the least probable ones.
void ExpectEqual(const Distribution& got, const std::map<int32_t, double>& wanted, const std::string& what) {
  ASSERT_TRUE(std::is_sorted(got.ids.begin(), got.ids.end())) << what;
  ASSERT_EQ(got.ids.size(), got.probs.size());
  ASSERT_EQ(got.ids.size(), wanted.size()) << what;
  const double tolerance = 1e-5;  // of scaled logits up to 100 in fp32
  double sum = 0;
  auto expected = wanted.begin();
  for (size_t i = 0; i < got.ids.size(); ++i, ++expected) {
    ASSERT_EQ(got.ids[i], expected->first) << what;
    ASSERT_NEAR(got.probs[i], expected->second, tolerance * expected->second)
        << what << ", token " << got.ids[i];
    sum += double(got.probs[i]);
  }
  EXPECT_NEAR(sum, 1, 2e-6) << what;
}

TEST(ServedDistribution, EqualsTheDefinition) {
  const std::vector<SamplingParams> all = {
      {},
      {.temperature = 0},
      {.temperature = 0.5f},
      {.temperature = 2},
      {.top_k = 1},
      {.top_k = 40},
      {.top_k = 1000000},
      {.top_p = 0.9f},
      {.top_p = 0.1f},
      {.top_p = 0.999f},
      {.top_p = 0},
      {.temperature = 5, .top_p = 0.95f},
      {.temperature = 0.2f, .top_p = 0.95f},
      {.min_p = 0.05f},
      {.min_p = 1},
      {.top_p = 0.8f, .min_p = 0.3f},
      {.temperature = 1.3f, .top_k = 20, .top_p = 0.7f, .min_p = 0.1f},
  };
  for (Isa isa : Isas()) {
    for (int vocab : {1, 2, 17, 1000, 5003}) {
      for (size_t i = 0; i < all.size(); ++i) {
        const auto logits = RandomLogits(vocab, 100 * i + uint64_t(vocab), i % 2 ? 8 : 20);
        ExpectEqual(Serve(isa, logits, all[i]), Brute(logits, all[i]),
                    fmt::format("{}, V = {}, case {}", IsaName(isa), vocab, i));
      }
    }
  }
}

TEST(ServedDistribution, EveryInstructionSetServesTheSameBits) {
  const auto logits = RandomLogits(10007, 77, 15);
  for (const SamplingParams& params : std::vector<SamplingParams>{
           {.temperature = 0.9f}, {.top_k = 50, .top_p = 0.9f}, {.top_p = 0.9f}, {.min_p = 0.01f}}) {
    const Distribution reference = Serve(Isa::kReference, logits, params);
    for (Isa isa : Isas()) {
      const Distribution d = Serve(isa, logits, params);
      EXPECT_EQ(d.ids, reference.ids) << IsaName(isa);
      EXPECT_EQ(d.probs, reference.probs) << IsaName(isa);
    }
  }
}

TEST(ServedDistribution, TiesGoToTheLowerId) {
  const std::vector<float> equal(8, 1.5f);
  for (Isa isa : Isas()) {
    EXPECT_THAT(Serve(isa, equal, {.temperature = 0}).ids, ElementsAre(0));
    EXPECT_THAT(Serve(isa, equal, {.top_k = 3}).ids, ElementsAre(0, 1, 2));
    EXPECT_THAT(Serve(isa, equal, {.top_p = 0.5f}).ids, ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(Serve(isa, equal, {.top_p = 0}).ids, ElementsAre(0));
    EXPECT_EQ(Serve(isa, equal, {.min_p = 1}).ids.size(), 8u);
    EXPECT_THAT(Serve(isa, {0, 3, 1, 3, 2}, {.top_k = 3}).ids, ElementsAre(1, 3, 4));
  }
}

TEST(ServedDistribution, EveryTruncationKeepsTheMostProbable) {
  for (Isa isa : Isas()) {
    const std::vector<float> peak = {0, 90, 1};
    EXPECT_THAT(Serve(isa, peak, {.top_p = 0.01f, .min_p = 1}).ids, ElementsAre(1));
    EXPECT_THAT(Serve(isa, peak, {.top_k = 1, .top_p = 0}).probs, ElementsAre(1));
    EXPECT_THAT(Serve(isa, peak, {.temperature = 1e-4f, .top_p = 0.5f}).ids, ElementsAre(1));
  }
}

TEST(ServedDistribution, SurvivorsOfAReusedRowAreTheSame) {
  for (Isa isa : Isas()) {
    Distribution reused;
    const auto logits = RandomLogits(300, 3);
    const std::vector<SamplingParams> order = {{},           {.top_p = 0.5f}, {}, {.temperature = 0},
                                               {.top_k = 7}, {.min_p = 0.1f}, {}};
    for (const SamplingParams& params : order) {
      auto row = logits;
      ServedDistribution(isa, row, params, nullptr, &reused);
      const Distribution fresh = Serve(isa, logits, params);
      EXPECT_EQ(reused.ids, fresh.ids);
      EXPECT_EQ(reused.probs, fresh.probs);
    }
  }
}

TEST(ServedDistribution, DoesNotAllocateOnceWarm) {
  Distribution out;
  const auto logits = RandomLogits(2000, 4);
  const std::vector<SamplingParams> all = {
      {}, {.top_p = 0.9f}, {.top_k = 40}, {.temperature = 0}, {.min_p = 0.01f}};
  const auto serve_all = [&] {
    for (const SamplingParams& params : all) {
      auto row = logits;
      ServedDistribution(DetectIsa(), row, params, nullptr, &out);
    }
  };
  serve_all();
  const auto* ids = out.ids.data();
  const auto* probs = out.probs.data();
  serve_all();
  EXPECT_EQ(out.ids.data(), ids);
  EXPECT_EQ(out.probs.data(), probs);
}

TEST(ServedDistribution, BiasThenPenaltiesThenTemperature) {
  TokenHistory history(5);
  history.AddPrompt(0);
  history.AddPrompt(1);
  history.Push(1);
  history.Push(2);
  history.Push(2);
  SamplingParams params{
      .temperature = 0.5f, .repetition_penalty = 2, .presence_penalty = 0.25f, .frequency_penalty = 0.5f};
  params.logit_bias = {{0, 3}, {4, -1}};
  const std::vector<float> logits = {1, -1, 4, 0.5f, 2};
  // 0: (1 + 3) / 2; 1: -1 * 2 - 1 * 0.5 - 0.25; 2: 4 / 2 - 2 * 0.5 - 0.25; 3: untouched; 4: 2 - 1
  const std::vector<float> penalised = {2, -2.75f, 0.75f, 0.5f, 1};
  auto row = logits;
  Distribution out;
  ServedDistribution(Isa::kReference, row, params, &history, &out);
  EXPECT_EQ(row, penalised);
  ExpectEqual(out, Brute(penalised, {.temperature = 0.5f}), "penalties");

  params.temperature = 0;
  params.logit_bias = {{3, 10}};
  EXPECT_THAT(Serve(Isa::kReference, logits, params, &history).ids, ElementsAre(3));
}

TEST(TokenHistory, PoppedDraftsLeaveNoTrace) {
  TokenHistory history(4), fresh(4);
  for (TokenHistory* h : {&history, &fresh}) {
    h->AddPrompt(1);
    h->Push(2);
  }
  history.Push(3);
  history.Push(2);
  history.Pop(2);
  history.Pop(3);
  EXPECT_EQ(history.Seen(2), 1);
  EXPECT_EQ(history.Generated(1), 0);
  EXPECT_EQ(history.Seen(3), 0);
  const SamplingParams params{.repetition_penalty = 1.5f, .presence_penalty = 1};
  EXPECT_EQ(Serve(Isa::kReference, {1, 2, 3, 4}, params, &history).probs,
            Serve(Isa::kReference, {1, 2, 3, 4}, params, &fresh).probs);
}

TEST(ServedDistributionDeath, PenaltiesNeedHistory) {
  EXPECT_DEATH(Serve(Isa::kReference, {1, 2}, {.presence_penalty = 1}), "history != nullptr");
}

// A broken model must not break the process, and must not pass for a sound one.
TEST(ServedDistribution, NonFiniteLogitsAreNoticed) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  for (Isa isa : Isas()) {
    for (const float value : {nan, infinity, -infinity}) {
      for (const SamplingParams& params : std::vector<SamplingParams>{{},
                                                                      {.temperature = 0},
                                                                      {.top_k = 5},
                                                                      {.top_k = 5, .top_p = 0.5f},
                                                                      {.top_p = 0.5f},
                                                                      {.min_p = 0.1f}}) {
        for (const size_t finite : {0, 3}) {  // logits that are all right
          std::vector<float> row(100, value);
          for (size_t i = 0; i < finite; ++i) row[10 * i] = float(i);
          Distribution d;
          const bool sound = ServedDistribution(isa, row, params, nullptr, &d);
          const bool masks = finite > 0 && (value == -infinity || (params.Greedy() && std::isnan(value)));
          EXPECT_EQ(sound, masks) << value << " beside " << finite;
          ASSERT_FALSE(d.ids.empty());
          const int32_t token = d.Sample(0.5);
          EXPECT_GE(token, 0);
          EXPECT_LT(token, 100);
        }
      }
    }
    const Distribution masked = Serve(isa, {-infinity, 1, -infinity, 1}, {});
    EXPECT_THAT(masked.probs, ElementsAre(0, FloatEq(0.5f), 0, FloatEq(0.5f)));
    EXPECT_EQ(masked.Sample(0), 1);
    EXPECT_EQ(masked.Sample(1 - 0x1p-53), 3);
  }
}

TEST(Distribution, SamplesByTheInverseCdfInIdOrder) {
  const Distribution d{{2, 5, 6, 9}, {0.25f, 0.5f, 0, 0.25f}};
  EXPECT_EQ(d.Sample(0), 2);
  EXPECT_EQ(d.Sample(0.2499), 2);
  EXPECT_EQ(d.Sample(0.25), 5);
  EXPECT_EQ(d.Sample(0.7499), 5);
  EXPECT_EQ(d.Sample(0.75), 9);
  EXPECT_EQ(d.Sample(1 - 0x1p-53), 9);
}

TEST(Distribution, NeverSamplesTheImpossible) {
  const Distribution short_sum{{0, 1, 2, 3}, {0, 0.5f, 0.49f, 0}};  // rounding, exaggerated
  EXPECT_EQ(short_sum.Sample(0), 1);
  EXPECT_EQ(short_sum.Sample(0.995), 2);
}

TEST(Distribution, SamplesLargeVocabulariesWithTheRightFrequencies) {
  constexpr int kVocab = 1000, kDraws = 1 << 20;
  const Distribution d = Serve(DetectIsa(), RandomLogits(kVocab, 5, 3), {});
  std::vector<int> counts(kVocab);
  for (int i = 0; i < kDraws; ++i) ++counts[size_t(d.Sample((i + 0.5) / kDraws))];
  for (size_t t = 0; t < kVocab; ++t) ASSERT_NEAR(counts[t], double(d.probs[t]) * kDraws, 2);
}

TEST(Distribution, LooksProbabilitiesUp) {
  const Distribution dense{{0, 1, 2}, {0.5f, 0.3f, 0.2f}}, sparse{{1, 7, 90}, {0.5f, 0.3f, 0.2f}};
  EXPECT_EQ(dense.ProbabilityOf(1), 0.3f);
  EXPECT_EQ(dense.ProbabilityOf(3), 0);
  EXPECT_EQ(sparse.ProbabilityOf(90), 0.2f);
  EXPECT_EQ(sparse.ProbabilityOf(1), 0.5f);
  EXPECT_EQ(sparse.ProbabilityOf(2), 0);
  EXPECT_EQ(sparse.ProbabilityOf(-1), 0);
  EXPECT_EQ(sparse.ProbabilityOf(1000), 0);
}

TEST(Validate, NamesTheParameterItsValueAndTheRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const auto error = [](const SamplingParams& params) { return Validate(params, 100).error().text; };
  EXPECT_TRUE(Validate({}, 100).ok());
  EXPECT_TRUE(
      Validate({.temperature = 0, .top_k = 500, .top_p = 0, .min_p = 1, .logit_bias = {{99, -100.0f}}}, 100)
          .ok());
  EXPECT_EQ(error({.temperature = -1}), "temperature is -1; it must lie between 0 and 100");
  EXPECT_THAT(error({.temperature = nan}), HasSubstr("temperature is nan"));
  EXPECT_THAT(error({.temperature = infinity}), HasSubstr("temperature is inf"));
  EXPECT_EQ(error({.top_k = -3}), "top_k is -3; it must be 0 (off) or more");
  EXPECT_THAT(error({.top_p = 1.5f}), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(error({.min_p = nan}), HasSubstr("min_p is nan"));
  EXPECT_THAT(error({.repetition_penalty = 0}), HasSubstr("repetition_penalty is 0"));
  EXPECT_THAT(error({.presence_penalty = 3}), HasSubstr("presence_penalty is 3"));
  EXPECT_THAT(error({.frequency_penalty = -infinity}), HasSubstr("frequency_penalty is -inf"));
  EXPECT_EQ(error({.logit_bias = {{100, 1.0f}}}), "logit_bias names token 100; tokens lie between 0 and 99");
  EXPECT_THAT(error({.logit_bias = {{-1, 1.0f}}}), HasSubstr("token -1"));
  EXPECT_THAT(error({.logit_bias = {{1, nan}}}), HasSubstr("logit_bias is nan"));
}

}  // namespace
}  // namespace dspark

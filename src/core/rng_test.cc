#include "core/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace dspark {
namespace {

using Block = std::array<uint32_t, 4>;

// Random123's kat_vectors, philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Uniform, IsInRangeAndAFunctionOfItsArguments) {
  for (uint64_t position = 0; position < 10000; ++position) {
    const double u = UniformDouble(7, position, Purpose::kTest);
    const float f = UniformFloat(7, position, Purpose::kTest);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ASSERT_GE(f, 0);
    ASSERT_LT(f, 1);
    ASSERT_EQ(u, UniformDouble(7, position, Purpose::kTest));
    ASSERT_EQ(f * 0x1p24f, std::floor(f * 0x1p24f));
    ASSERT_NEAR(u, f, 0x1p-24);
  }
}

TEST(Uniform, EveryArgumentMatters) {
  const double u = UniformDouble(1, 2, Purpose::kTest, 3);
  EXPECT_NE(u, UniformDouble(2, 2, Purpose::kTest, 3));
  EXPECT_NE(u, UniformDouble(1 | uint64_t{1} << 32, 2, Purpose::kTest, 3));
  EXPECT_NE(u, UniformDouble(1, 3, Purpose::kTest, 3));
  EXPECT_NE(u, UniformDouble(1, 2 | uint64_t{1} << 32, Purpose::kTest, 3));
  EXPECT_NE(u, UniformDouble(1, 2, Purpose::kAccept, 3));
  EXPECT_NE(u, UniformDouble(1, 2, Purpose::kTest, 4));
}

// z-score of a chi-square statistic with many degrees of freedom (Wilson-Hilferty).
double ChiSquareZ(double statistic, int degrees) {
  const double v = 2.0 / (9.0 * degrees);
  return (std::cbrt(statistic / degrees) - (1 - v)) / std::sqrt(v);
}

TEST(Uniform, FillsItsRangeEvenly) {
  constexpr int kBins = 256, kDraws = 1 << 20;
  std::vector<int> counts(kBins);
  for (int i = 0; i < kDraws; ++i) ++counts[int(UniformDouble(42, uint64_t(i), Purpose::kTest) * kBins)];
  const double expected = double(kDraws) / kBins;
  double statistic = 0;
  for (int count : counts) statistic += (count - expected) * (count - expected) / expected;
  EXPECT_LT(std::abs(ChiSquareZ(statistic, kBins - 1)), 4.5);
}

// Joint bins of two draws: neighbouring positions, purposes and indices must be independent.
double PairZ(double (*first)(uint64_t), double (*second)(uint64_t)) {
  constexpr int kBins = 16, kDraws = 1 << 18;
  std::vector<int> counts(kBins * kBins);
  for (int i = 0; i < kDraws; ++i) {
    ++counts[int(first(uint64_t(i)) * kBins) * kBins + int(second(uint64_t(i)) * kBins)];
  }
  const double expected = double(kDraws) / (kBins * kBins);
  double statistic = 0;
  for (int count : counts) statistic += (count - expected) * (count - expected) / expected;
  return ChiSquareZ(statistic, kBins * kBins - 1);
}

TEST(Uniform, PurposesPositionsIndicesAndSeedsAreIndependent) {
  const auto draft = [](uint64_t i) { return UniformDouble(5, i, Purpose::kDraft); };
  EXPECT_LT(PairZ(draft, [](uint64_t i) { return UniformDouble(5, i, Purpose::kAccept); }), 4.5);
  EXPECT_LT(PairZ(draft, [](uint64_t i) { return UniformDouble(5, i, Purpose::kBonus); }), 4.5);
  EXPECT_LT(PairZ(draft, [](uint64_t i) { return UniformDouble(5, i + 1, Purpose::kDraft); }), 4.5);
  EXPECT_LT(PairZ(draft, [](uint64_t i) { return UniformDouble(5, i, Purpose::kDraft, 1); }), 4.5);
  EXPECT_LT(PairZ(draft, [](uint64_t i) { return UniformDouble(6, i, Purpose::kDraft); }), 4.5);
  EXPECT_GT(PairZ(draft, draft), 100);
}

}  // namespace
}  // namespace dspark

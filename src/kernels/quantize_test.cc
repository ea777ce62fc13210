#include "kernels/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/float16.h"

namespace dspark {
namespace {

constexpr WeightFormat kQuantized[] = {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kInt4Min};

std::vector<float> NormalValues(size_t n, float size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// Half a step of the block's grid, and what rounding scale and min to fp16 moves its ends by.
float LargestError(WeightFormat format, const float* x) {
  const auto [min, max] = std::minmax_element(x, x + 32);
  const float amax = std::max(std::fabs(*min), std::fabs(*max)), to_half = amax / 1024;
  if (format == WeightFormat::kInt8) return amax / 127 / 2 + to_half;
  if (format == WeightFormat::kInt4Min) return (*max - *min) / 15 / 2 + 2 * to_half;
  return amax / 8 + to_half;  // the far end of the grid has no level of its own: a whole step
}

TEST(QuantizeWeights, StaysWithinAStepOfTheBlock) {
  for (const WeightFormat format : kQuantized) {
    for (const float size : {0.02f, 1.0f, 300.0f}) {
      const int n = 21, k = 96;
      const std::vector<float> values = NormalValues(size_t(n) * k, size, 3);
      PackedMatrix matrix(n, k, format);
      std::vector<float> row(k);
      for (int r = 0; r < n; ++r) matrix.SetRowFromFloats(r, &values[size_t(r) * k]);
      for (int r = 0; r < n; ++r) {
        matrix.GetRow(r, row.data());
        for (int i = 0; i < k; ++i) {
          const float* x = &values[size_t(r) * k];
          EXPECT_LE(std::fabs(row[i] - x[i]), LargestError(format, x + i / 32 * 32)) << int(format);
        }
      }
    }
  }
}

TEST(QuantizeWeights, GridPointsComeBackExactly) {
  std::vector<float> int8(32), int4(32), int4_min(32);
  for (int i = 0; i < 32; ++i) {
    int8[i] = 0.25f * float(i == 0 ? -127 : i * 4 - 64);
    int4[i] = 0.5f * float(i % 16 - 8);
    int4_min[i] = 3 + 0.5f * float(i % 16);
  }
  const std::pair<WeightFormat, const std::vector<float>*> cases[] = {
      {WeightFormat::kInt8, &int8}, {WeightFormat::kInt4, &int4}, {WeightFormat::kInt4Min, &int4_min}};
  for (const auto& [format, values] : cases) {
    PackedMatrix matrix(1, 32, format);
    matrix.SetRowFromFloats(0, values->data());
    std::vector<float> row(32);
    matrix.GetRow(0, row.data());
    EXPECT_EQ(row, *values) << int(format);
  }
}

TEST(QuantizeWeights, HalvesRoundAwayFromZero) {
  std::vector<float> values(32, 0.0f);
  values[0] = 127, values[1] = 2.5f, values[2] = -2.5f, values[3] = 3.5f;
  const BlockLevels block = QuantizeWeights(WeightFormat::kInt8, values.data());
  EXPECT_EQ(HalfToFloat(block.scale), 1);
  EXPECT_EQ(block.level[1], 128 + 3);
  EXPECT_EQ(block.level[2], 128 - 3);
  EXPECT_EQ(block.level[3], 128 + 4);
}

TEST(QuantizeWeights, AnyFloatsGiveFiniteWeights) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const WeightFormat format : kQuantized) {
    for (const float odd : {inf, -inf, nan, 3e38f, -3e38f, 1e-45f, 0.0f}) {
      std::vector<float> values = NormalValues(32, 1, 5), row(32);
      values[7] = odd;
      if (odd == 0) std::ranges::fill(values, 0.0f);
      PackedMatrix matrix(1, 32, format);
      matrix.SetRowFromFloats(0, values.data());
      matrix.GetRow(0, row.data());
      for (const float v : row) EXPECT_TRUE(std::isfinite(v)) << int(format) << " with " << odd;
      if (odd == 0) {
        EXPECT_EQ(row, values);
      }
    }
  }
}

TEST(PackedMatrix, FloatRowsFromFloats) {
  const int n = 17, k = 45;
  const std::vector<float> values = NormalValues(size_t(n) * k, 1, 9);
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBf16}) {
    PackedMatrix matrix(n, k, format);
    for (int r = 0; r < n; ++r) matrix.SetRowFromFloats(r, &values[size_t(r) * k]);
    std::vector<float> row(k);
    for (int r = 0; r < n; ++r) {
      matrix.GetRow(r, row.data());
      for (int i = 0; i < k; ++i) {
        const float v = values[size_t(r) * k + i];
        EXPECT_EQ(row[i], format == WeightFormat::kF32   ? v
                          : format == WeightFormat::kF16 ? HalfToFloat(FloatToHalf(v))
                                                         : Bf16ToFloat(FloatToBf16(v)));
      }
    }
  }
}

}  // namespace
}  // namespace dspark

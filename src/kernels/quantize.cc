#include "kernels/quantize.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/float16.h"

namespace dspark {
namespace {

constexpr int kValues = 32;

uint16_t ToHalf(float value) {
  constexpr float kLargest = 65504;
  return FloatToHalf(std::clamp(value, -kLargest, kLargest));
}

float Inverse(float scale) { return scale != 0 ? 1 / scale : 0; }

// Truncated to 0 … max; NaN (an infinity times an inverse scale of 0) gives 0.
uint8_t Level(float value, int max) {
  if (!(value > 0)) return 0;
  return uint8_t(value < float(max) ? int(value) : max);
}

// The value of largest magnitude, the first of equals.
float Largest(const float* values) {
  float largest = 0;
  for (int i = 0; i < kValues; ++i) {
    if (std::fabs(values[i]) > std::fabs(largest)) largest = values[i];
  }
  return largest;
}

BlockLevels QuantizeInt8(const float* values) {
  BlockLevels block = {};
  const float scale = std::fabs(Largest(values)) / 127, inverse = Inverse(scale);
  block.scale = ToHalf(scale);
  for (int i = 0; i < kValues; ++i) block.level[i] = Level(std::round(values[i] * inverse) + 128, 255);
  return block;
}

BlockLevels QuantizeInt4(const float* values) {
  BlockLevels block = {};
  const float scale = Largest(values) / -8, inverse = Inverse(scale);
  block.scale = ToHalf(scale);
  for (int i = 0; i < kValues; ++i) block.level[i] = Level(std::fma(values[i], inverse, 8.5f), 15);
  return block;
}

BlockLevels QuantizeInt4Min(const float* values) {
  BlockLevels block = {};
  const auto [min, max] = std::minmax_element(values, values + kValues);
  const float scale = (*max - *min) / 15, inverse = Inverse(scale);
  block.scale = ToHalf(scale);
  block.min = ToHalf(*min);
  for (int i = 0; i < kValues; ++i) block.level[i] = Level((values[i] - *min) * inverse + 0.5f, 15);
  return block;
}

}  // namespace

BlockLevels QuantizeWeights(WeightFormat format, const float* values) {
  float numbers[kValues];
  for (int i = 0; i < kValues; ++i) numbers[i] = std::isnan(values[i]) ? 0 : values[i];
  switch (format) {
    case WeightFormat::kInt8:
      return QuantizeInt8(numbers);
    case WeightFormat::kInt4:
      return QuantizeInt4(numbers);
    default:
      DSPARK_CHECK(format == WeightFormat::kInt4Min);
      return QuantizeInt4Min(numbers);
  }
}

}  // namespace dspark

// The definition of the packed matmul and of activation quantisation, as plainly as the arithmetic allows.
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/float16.h"
#include "kernels/matmul_kernels.h"

namespace dspark {
namespace {

uint16_t Load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

float LoadElement(WeightFormat format, const uint8_t* elements, int i) {
  if (format == WeightFormat::kF16) return HalfToFloat(Load16(elements + i * 2));
  if (format == WeightFormat::kBf16) return Bf16ToFloat(Load16(elements + i * 2));
  float v;
  std::memcpy(&v, elements + i * 4, sizeof(v));
  return v;
}

float FloatElement(const MatMulTask& task, int group, int lane, int row) {
  const uint8_t* elements = task.groups + group * task.group_bytes;
  const float* x = task.values + row * task.values_stride;
  float acc = 0;
  for (int k = 0; k < task.k; ++k)
    acc = std::fma(LoadElement(task.format, elements, k * kGroupRows + lane), x[k], acc);
  return acc;
}

// Level i of one lane in the 32 levels × 16 lanes of a block.
template <WeightFormat kFormat>
int Level(const uint8_t* levels, int lane, int i) {
  if constexpr (kFormat == WeightFormat::kInt8) return levels[i / 4 * 64 + lane * 4 + i % 4];
  const uint8_t byte = levels[i / 4 % 4 * 64 + lane * 4 + i % 4];
  return i < 16 ? byte & 15 : byte >> 4;
}

template <WeightFormat kFormat>
float QuantizedElement(const MatMulTask& task, int group, int lane, int row) {
  using Layout = QuantizedLayout<kFormat>;
  const int blocks = task.k / kBlockSize;
  const uint8_t* levels = task.groups + group * task.group_bytes;
  const uint8_t* scales = levels + blocks * Layout::kLevelBytes;
  const QuantizedBlock* x = task.quantized + row * task.quantized_stride;
  float acc = 0;
  for (int b = 0; b < blocks; ++b, levels += Layout::kLevelBytes, scales += Layout::kScaleBytes) {
    int32_t dot = 0;
    for (int i = 0; i < kBlockSize; ++i)
      dot += (Level<kFormat>(levels, lane, i) - Layout::kZero) * x[b].level[i];
    acc = std::fma(float(dot), HalfToFloat(Load16(scales + lane * 2)) * x[b].scale, acc);
    if (Layout::kHasMin) acc = std::fma(HalfToFloat(Load16(scales + 32 + lane * 2)), x[b].scaled_sum, acc);
  }
  return acc;
}

float Element(const MatMulTask& task, int group, int lane, int row) {
  switch (task.format) {
    case WeightFormat::kInt8:
      return QuantizedElement<WeightFormat::kInt8>(task, group, lane, row);
    case WeightFormat::kInt4:
      return QuantizedElement<WeightFormat::kInt4>(task, group, lane, row);
    case WeightFormat::kInt4Min:
      return QuantizedElement<WeightFormat::kInt4Min>(task, group, lane, row);
    default:
      return FloatElement(task, group, lane, row);
  }
}

}  // namespace

void MatMulReference(const MatMulTask& task) {
  for (int group = task.first_group; group < task.end_group; ++group) {
    for (int lane = 0; lane < kGroupRows && group * kGroupRows + lane < task.n; ++lane) {
      for (int row = 0; row < task.rows; ++row) {
        float* y = task.y + row * task.y_stride + group * kGroupRows + lane;
        const float product = Element(task, group, lane, row);
        *y = task.store == Store::kAdd ? *y + product : product;
      }
    }
  }
}

void QuantizeReference(const float* x, int blocks, QuantizedBlock* out) {
  for (int b = 0; b < blocks; ++b, x += kBlockSize) {
    uint32_t amax_bits = 0;  // magnitudes order like their bits, NaN above infinity above all numbers
    for (int i = 0; i < kBlockSize; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffff;
      if (magnitude > amax_bits) amax_bits = magnitude;
    }
    QuantizedBlock block = {};
    const float scale = std::bit_cast<float>(amax_bits) / 127;
    if (scale >= FLT_MIN && scale <= FLT_MAX) {
      const float inverse = 1 / scale;
      int sum = 0;
      for (int i = 0; i < kBlockSize; ++i) {
        block.level[i] = int8_t(std::nearbyint(x[i] * inverse));
        sum += block.level[i];
      }
      block.scale = scale;
      block.scaled_sum = scale * float(sum);
      block.offset_128 = -128 * sum;
      block.offset_8 = -8 * sum;
    } else if (!(scale <= FLT_MAX)) {
      block.scale = std::numeric_limits<float>::quiet_NaN();
    }
    out[b] = block;
  }
}

}  // namespace dspark

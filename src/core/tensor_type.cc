#include "core/tensor_type.h"

#include <cstring>

#include "core/check.h"
#include "core/float16.h"

namespace dspark {
namespace {

uint16_t Load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

void DequantizeF32(const uint8_t* block, float* values) { std::memcpy(values, block, sizeof(float)); }
void DequantizeF16(const uint8_t* block, float* values) { *values = HalfToFloat(Load16(block)); }
void DequantizeBf16(const uint8_t* block, float* values) { *values = Bf16ToFloat(Load16(block)); }

// Nibbles: value j is the low half of byte j, value j + 16 the high half.
void SplitNibbles(const uint8_t* packed, uint8_t* level) {
  for (int j = 0; j < 16; ++j) {
    level[j] = packed[j] & 15;
    level[j + 16] = packed[j] >> 4;
  }
}

void LevelsQ4_0(const uint8_t* block, BlockLevels* out) {  // {f16 d; u8 qs[16]}, y = d * (q - 8)
  out->scale = Load16(block);
  out->min = 0;
  SplitNibbles(block + 2, out->level);
}

void LevelsQ4_1(const uint8_t* block, BlockLevels* out) {  // {f16 d; f16 m; u8 qs[16]}, y = d * q + m
  out->scale = Load16(block);
  out->min = Load16(block + 2);
  SplitNibbles(block + 4, out->level);
}

void LevelsQ8_0(const uint8_t* block, BlockLevels* out) {  // {f16 d; i8 qs[32]}, y = d * q
  out->scale = Load16(block);
  out->min = 0;
  for (int j = 0; j < 32; ++j) out->level[j] = uint8_t(block[2 + j] ^ 0x80);
}

// Without a min nothing is added: -0 + 0 would lose the sign of a zero.
template <void (*kLevels)(const uint8_t*, BlockLevels*), int kZero, bool kHasMin>
void DequantizeLevels(const uint8_t* block, float* values) {
  BlockLevels levels;
  kLevels(block, &levels);
  const float scale = HalfToFloat(levels.scale), min = HalfToFloat(levels.min);
  for (int j = 0; j < 32; ++j) {
    const float value = scale * float(int(levels.level[j]) - kZero);
    values[j] = kHasMin ? value + min : value;
  }
}

// Looks at the exponents of the kWords numbers that each block of kBytes begins with.
template <class Word, Word kExponent, int kWords, int kBytes>
bool FiniteBlocks(const uint8_t* src, int64_t blocks) {
  Word bad = 0;  // as wide as what it is made of: the loop then vectorises
  for (int64_t i = 0; i < blocks; ++i) {
    for (int j = 0; j < kWords; ++j) {
      Word word;
      std::memcpy(&word, src + i * kBytes + j * int(sizeof(Word)), sizeof(word));
      bad |= Word((word & kExponent) == kExponent);
    }
  }
  return bad == 0;
}
constexpr auto kFiniteF32 = FiniteBlocks<uint32_t, 0x7f800000, 1, 4>;
constexpr auto kFiniteF16 = FiniteBlocks<uint16_t, 0x7c00, 1, 2>;
constexpr auto kFiniteBf16 = FiniteBlocks<uint16_t, 0x7f80, 1, 2>;
template <int kHalves, int kBytes>
constexpr auto kFiniteScales = FiniteBlocks<uint16_t, 0x7c00, kHalves, kBytes>;

constexpr TensorTypeInfo kTypes[] = {
    // type, name, values and bytes per block, level bits, zero, min, decoders, check
    {TensorType::kF32, "F32", 1, 4, 0, 0, false, DequantizeF32, nullptr, kFiniteF32},
    {TensorType::kF16, "F16", 1, 2, 0, 0, false, DequantizeF16, nullptr, kFiniteF16},
    {TensorType::kBF16, "BF16", 1, 2, 0, 0, false, DequantizeBf16, nullptr, kFiniteBf16},
    {TensorType::kI16, "I16", 1, 2, 0, 0, false, nullptr, nullptr, nullptr},
    {TensorType::kI32, "I32", 1, 4, 0, 0, false, nullptr, nullptr, nullptr},
    {TensorType::kI64, "I64", 1, 8, 0, 0, false, nullptr, nullptr, nullptr},
    {TensorType::kQ4_0, "Q4_0", 32, 18, 4, 8, false, DequantizeLevels<LevelsQ4_0, 8, false>, LevelsQ4_0,
     kFiniteScales<1, 18>},
    {TensorType::kQ4_1, "Q4_1", 32, 20, 4, 0, true, DequantizeLevels<LevelsQ4_1, 0, true>, LevelsQ4_1,
     kFiniteScales<2, 20>},
    {TensorType::kQ8_0, "Q8_0", 32, 34, 8, 128, false, DequantizeLevels<LevelsQ8_0, 128, false>, LevelsQ8_0,
     kFiniteScales<1, 34>},
};

}  // namespace

const TensorTypeInfo* FindTensorType(int32_t id) {
  for (const auto& info : kTypes) {
    if (int32_t(info.type) == id) return &info;
  }
  return nullptr;
}

const TensorTypeInfo& InfoOf(TensorType type) {
  const TensorTypeInfo* info = FindTensorType(int32_t(type));
  DSPARK_CHECK(info != nullptr);
  return *info;
}

void Dequantize(TensorType type, const uint8_t* src, int64_t n, float* dst) {
  const TensorTypeInfo& info = InfoOf(type);
  DSPARK_CHECK(info.dequantize != nullptr);
  DSPARK_CHECK_EQ(n % info.block_values, 0);
  for (int64_t i = 0; i < n; i += info.block_values, src += info.block_bytes) info.dequantize(src, dst + i);
}

bool AllFinite(TensorType type, const uint8_t* src, int64_t n) {
  const TensorTypeInfo& info = InfoOf(type);
  DSPARK_CHECK(info.finite != nullptr);
  DSPARK_CHECK_EQ(n % info.block_values, 0);
  return info.finite(src, n / info.block_values);
}

}  // namespace dspark

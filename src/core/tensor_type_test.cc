#include "core/tensor_type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/float16.h"
#include "core/rng.h"

namespace dspark {
namespace {

constexpr TensorType kWeights[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                   TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ8_0};

// Random bytes: about every exponent comes up, NaN and infinity among them.
TEST(TensorTypes, FiniteIsWhatDecodesToFinite) {
  int finite = 0, others = 0;
  for (const TensorType type : kWeights) {
    const TensorTypeInfo& info = InfoOf(type);
    for (uint64_t block = 0; block < 2000; ++block) {
      std::vector<uint8_t> bytes(size_t(info.block_bytes));
      for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = uint8_t(256 * UniformFloat(uint64_t(type), block << 8 | i, Purpose::kTest));
      }
      std::vector<float> values(size_t(info.block_values));
      Dequantize(type, bytes.data(), info.block_values, values.data());
      bool expected = true;
      for (const float value : values) expected &= std::isfinite(value);
      ASSERT_EQ(AllFinite(type, bytes.data(), info.block_values), expected) << info.name << " " << block;
      ++(expected ? finite : others);
    }
  }
  EXPECT_GT(finite, 1000);
  EXPECT_GT(others, 100);
}

TEST(TensorTypes, OneBadBlockIsFoundAnywhere) {
  for (const TensorType type : kWeights) {
    const TensorTypeInfo& info = InfoOf(type);
    constexpr int kBlocks = 37;
    std::vector<uint8_t> bytes(size_t(info.block_bytes) * kBlocks);
    EXPECT_TRUE(AllFinite(type, bytes.data(), int64_t(info.block_values) * kBlocks));
    for (int bad = 0; bad < kBlocks; ++bad) {
      std::vector<uint8_t> damaged = bytes;
      const size_t number = type == TensorType::kF32 ? 4 : 2;  // little-endian: exponents at the end
      damaged[size_t(bad * info.block_bytes) + number - 1] = 0x7f;
      damaged[size_t(bad * info.block_bytes) + number - 2] = 0xc0;
      EXPECT_FALSE(AllFinite(type, damaged.data(), int64_t(info.block_values) * kBlocks)) << info.name;
    }
  }
}

}  // namespace
}  // namespace dspark

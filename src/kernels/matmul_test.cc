#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/float16.h"

namespace dspark {
namespace {

constexpr TensorType kFloatTypes[] = {TensorType::kF32, TensorType::kF16, TensorType::kBF16};
constexpr TensorType kBlockTypes[] = {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1};
constexpr Isa kVectorIsas[] = {Isa::kAvx2, Isa::kAvx512Vnni};

using Random = std::mt19937;

float Normal(Random& random) { return std::normal_distribution<float>()(random); }

// A scale or min of a random block: mostly ordinary, sometimes zero, subnormal or negative.
uint16_t RandomHalf(Random& random) {
  switch (random() % 8) {
    case 0:
      return 0;
    case 1:
      return uint16_t(1 + random() % 0x3ff);
    default:
      return FloatToHalf(0.05f * Normal(random));
  }
}

// n rows of k values in the encoding of `type`; blocks have any level, some blocks only extreme ones.
std::vector<uint8_t> RandomWeights(TensorType type, int n, int k, Random& random) {
  const TensorTypeInfo& info = InfoOf(type);
  std::vector<uint8_t> bytes(size_t(n) * k / info.block_values * info.block_bytes);
  for (size_t at = 0; at < bytes.size(); at += info.block_bytes) {
    uint8_t* block = &bytes[at];
    if (type == TensorType::kF32) {
      const float v = Normal(random);
      std::memcpy(block, &v, 4);
    } else if (info.level_bits == 0) {
      const float v = Normal(random);
      const uint16_t half = type == TensorType::kF16 ? FloatToHalf(v) : FloatToBf16(v);
      std::memcpy(block, &half, 2);
    } else {
      const uint32_t kind = random() % 8;
      for (int i = 0; i < info.block_bytes; ++i) {
        block[i] = kind == 0   ? 0x80
                   : kind == 1 ? 0x7f
                   : kind == 2 ? 0xff
                   : kind == 3 ? 0x00
                               : uint8_t(random());
      }
      for (int i = 0; i < (info.has_min ? 2 : 1); ++i) {
        const uint16_t half = RandomHalf(random);
        std::memcpy(block + 2 * i, &half, 2);
      }
    }
  }
  return bytes;
}

PackedMatrix Pack(TensorType type, int n, int k, const std::vector<uint8_t>& bytes) {
  PackedMatrix matrix(n, k, PackedFormatOf(type));
  const size_t stride = bytes.size() / n;
  for (int row = 0; row < n; row += 16) {
    matrix.SetRowGroup(row / 16, type, &bytes[row * stride], stride, std::min(16, n - row));
  }
  return matrix;
}

// Rows with ordinary values, with zero blocks and with large outliers.
Activations RandomActivations(int rows, int cols, Isa isa, Random& random) {
  Activations x(rows, cols);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) x.Row(r)[c] = Normal(random) * (random() % 50 == 0 ? 100.0f : 1.0f);
    if (cols >= 32 && random() % 4 == 0) std::fill_n(x.Row(r), 32, 0.0f);
    if (cols % 32 == 0) x.QuantizeRow(r, isa);
  }
  return x;
}

struct Shape {
  int m, n, k;
};

// y after a MatMul into rows of n + 3 floats that held `fill`; the 3 extra floats must survive.
std::vector<float> Multiply(Isa isa, int workers, const PackedMatrix& w, const Activations& x, Store store,
                            float fill = 0.5f) {
  const size_t stride = w.n() + 3;
  std::vector<float> y(x.rows() * stride, fill);
  ThreadPool pool(workers, isa);
  pool.Run([&](Worker& worker) { MatMul(worker, w, x, y.data(), stride, store); });
  for (int r = 0; r < x.rows(); ++r) {
    for (int i = 0; i < 3; ++i) EXPECT_EQ(y[r * stride + w.n() + i], fill) << "written beyond the row's end";
  }
  return y;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void ExpectEqualsReference(TensorType type, Shape shape, uint32_t seed) {
  Random random(seed);
  const PackedMatrix w = Pack(type, shape.n, shape.k, RandomWeights(type, shape.n, shape.k, random));
  const Activations x = RandomActivations(shape.m, shape.k, Isa::kReference, random);
  for (Store store : {Store::kSet, Store::kAdd}) {
    const auto expected = Multiply(Isa::kReference, 1, w, x, store);
    EXPECT_TRUE(SameBits(Multiply(Isa::kReference, 3, w, x, store), expected));
    for (Isa isa : kVectorIsas) {
      if (!IsaSupported(isa)) continue;
      for (int workers : {1, 2, 3}) {
        EXPECT_TRUE(SameBits(Multiply(isa, workers, w, x, store), expected))
            << InfoOf(type).name << " " << IsaName(isa) << " M=" << shape.m << " N=" << shape.n
            << " K=" << shape.k << " workers=" << workers << " add=" << (store == Store::kAdd);
      }
    }
  }
}

TEST(MatMul, EveryIsaEqualsTheReferenceOnBlockFormats) {
  Random random(1);
  for (TensorType type : kBlockTypes) {
    for (int m = 1; m <= 17; ++m) {
      ExpectEqualsReference(type, {m, int(1 + random() % 70), int(32 * (1 + random() % 9))}, random());
    }
    for (int m : {64, 512}) ExpectEqualsReference(type, {m, int(17 + random() % 20), 96}, random());
    ExpectEqualsReference(type, {19, 33, 8192}, random());  // rows that do not fit one chunk of a call
  }
}

TEST(MatMul, EveryIsaEqualsTheReferenceOnFloatFormats) {
  Random random(2);
  for (TensorType type : kFloatTypes) {
    for (int m = 1; m <= 17; ++m) {
      ExpectEqualsReference(type, {m, int(1 + random() % 70), int(1 + random() % 200)}, random());
    }
    for (int m : {64, 512}) ExpectEqualsReference(type, {m, int(17 + random() % 20), 61}, random());
    ExpectEqualsReference(type, {19, 33, 8191}, random());
  }
}

// Blocks of the most extreme levels and activations: the int32 sums must not saturate on the way.
TEST(MatMul, ExtremeLevelsAreExact) {
  for (TensorType type : kBlockTypes) {
    const TensorTypeInfo& info = InfoOf(type);
    for (int level_byte : {0x00, 0x7f, 0x80, 0xff}) {
      std::vector<uint8_t> bytes(size_t(info.block_bytes) * 16, uint8_t(level_byte));
      for (int n = 0; n < 16; ++n) {
        const uint16_t one = FloatToHalf(1), none = 0;
        std::memcpy(&bytes[size_t(n) * info.block_bytes], &one, 2);
        if (info.has_min) std::memcpy(&bytes[size_t(n) * info.block_bytes + 2], &none, 2);
      }
      const PackedMatrix w = Pack(type, 16, 32, bytes);
      BlockLevels levels;
      info.levels(bytes.data(), &levels);
      for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
        if (!IsaSupported(isa)) continue;
        Activations x(2, 32);
        for (int i = 0; i < 32; ++i) {
          x.Row(0)[i] = 127;
          x.Row(1)[i] = -127;
        }
        for (int r = 0; r < 2; ++r) x.QuantizeRow(r, isa);
        int expected = 0;
        for (uint8_t level : levels.level) expected += (level - info.zero) * 127;
        const auto y = Multiply(isa, 1, w, x, Store::kSet);
        EXPECT_EQ(y[0], float(expected)) << info.name << " " << level_byte;
        EXPECT_EQ(y[16 + 3], float(-expected)) << info.name << " " << level_byte;
      }
    }
  }
}

// The reference against a plain multiplication of decoded weights in double precision.
TEST(MatMul, ReferenceMultipliesDecodedWeights) {
  Random random(3);
  const int m = 5, n = 37, k = 288;
  for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                          TensorType::kQ4_0, TensorType::kQ4_1}) {
    const auto bytes = RandomWeights(type, n, k, random);
    std::vector<float> decoded(size_t(n) * k);
    Dequantize(type, bytes.data(), int64_t(n) * k, decoded.data());
    const PackedMatrix w = Pack(type, n, k, bytes);
    const Activations x = RandomActivations(m, k, Isa::kReference, random);
    const auto y = Multiply(Isa::kReference, 1, w, x, Store::kSet);
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < n; ++c) {
        double expected = 0, magnitude = 0;  // of the products of decoded weights and (quantised) activations
        for (int i = 0; i < k; ++i) {
          const QuantizedBlock& block = x.Quantized(r)[i / 32];
          const double a =
              InfoOf(type).level_bits ? double(block.level[i % 32]) * block.scale : double(x.Row(r)[i]);
          expected += a * decoded[size_t(c) * k + i];
          magnitude += std::abs(a * decoded[size_t(c) * k + i]);
        }
        EXPECT_NEAR(y[r * (n + 3) + c], expected, 1e-5 * magnitude + 1e-30) << InfoOf(type).name;
      }
    }
  }
}

// What makes a verify of M rows equal M single steps.
TEST(MatMul, RowsDoNotDependOnTheirNumber) {
  Random random(4);
  const int n = 45, k = 160;
  for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                          TensorType::kQ4_0, TensorType::kQ4_1}) {
    const PackedMatrix w = Pack(type, n, k, RandomWeights(type, n, k, random));
    for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
      if (!IsaSupported(isa)) continue;
      for (int m : {2, 7, 8, 13, 64}) {
        const Activations x = RandomActivations(m, k, isa, random);
        const auto all = Multiply(isa, 2, w, x, Store::kSet);
        for (int r = 0; r < m; ++r) {
          Activations one(1, k);
          std::copy_n(x.Row(r), k, one.Row(0));
          one.QuantizeRow(0, isa);
          const auto y = Multiply(isa, 1, w, one, Store::kSet);
          EXPECT_EQ(std::memcmp(y.data(), &all[r * (n + 3)], n * sizeof(float)), 0)
              << InfoOf(type).name << " row " << r;
        }
      }
    }
  }
}

TEST(MatMul, ColumnsArePartitionedInGroups) {
  for (int workers : {1, 2, 3, 5}) {
    for (int n : {1, 16, 45, 192, 576}) {
      std::vector<int> owners(n);
      ThreadPool pool(workers, Isa::kReference);
      pool.Run([&](Worker& worker) {
        const Range columns = MatMulColumns(worker, n);
        EXPECT_TRUE(columns.size() == 0 || columns.begin % 16 == 0);
        for (int c = columns.begin; c < columns.end; ++c) ++owners[c];
      });
      EXPECT_EQ(owners, std::vector<int>(n, 1));
    }
  }
}

TEST(PackedMatrix, RowsComeBackAsTheyWereStored) {
  Random random(5);
  for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                          TensorType::kQ4_0, TensorType::kQ4_1}) {
    const int n = 21, k = 96;
    const auto bytes = RandomWeights(type, n, k, random);
    const PackedMatrix by_group = Pack(type, n, k, bytes);
    PackedMatrix by_row(n, k, PackedFormatOf(type));
    std::vector<float> expected(k), got(k);
    for (int row = 0; row < n; ++row) by_row.SetRow(row, type, &bytes[row * (bytes.size() / n)]);
    for (int row = 0; row < n; ++row) {
      Dequantize(type, &bytes[row * (bytes.size() / n)], k, expected.data());
      by_group.GetRow(row, got.data());
      EXPECT_TRUE(SameBits(got, expected)) << InfoOf(type).name << " row " << row;
      by_row.GetRow(row, got.data());
      EXPECT_TRUE(SameBits(got, expected)) << InfoOf(type).name << " row " << row;
    }
  }
}

std::vector<QuantizedBlock> Quantize(Isa isa, const std::vector<float>& values) {
  Activations x(1, int(values.size()));
  std::copy(values.begin(), values.end(), x.Row(0));
  x.QuantizeRow(0, isa);
  return {x.Quantized(0), x.Quantized(0) + values.size() / 32};
}

TEST(Quantize, EveryIsaEqualsTheReference) {
  Random random(6);
  std::vector<float> values(32 * 400);
  for (size_t b = 0; b < values.size() / 32; ++b) {
    const float size = std::ldexp(1.0f, int(random() % 270) - 145);
    const uint32_t kind = random() % 4;
    for (int i = 0; i < 32; ++i) {
      float& v = values[b * 32 + i];
      if (kind == 0) v = std::bit_cast<float>(uint32_t(random()));  // any bits: NaN and infinities too
      if (kind == 1) v = Normal(random) * size;                     // any magnitude, subnormals included
      if (kind == 2) v = Normal(random);
      if (kind == 3) v = i == 0 ? 127.0f : float(int(random() % 255) - 127) + 0.5f;  // ties
    }
  }
  const auto expected = Quantize(Isa::kReference, values);
  for (Isa isa : kVectorIsas) {
    if (!IsaSupported(isa)) continue;
    const auto got = Quantize(isa, values);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(QuantizedBlock)), 0)
        << IsaName(isa);
  }
}

TEST(Quantize, RoundsToNearestEvenOfTheLargest) {
  std::vector<float> values(32);
  values[0] = -254;
  values[1] = 1;
  values[2] = 3;
  values[3] = 5.02f;
  const QuantizedBlock block = Quantize(Isa::kReference, values)[0];
  EXPECT_EQ(block.scale, 2);
  EXPECT_EQ(block.level[0], -127);
  EXPECT_EQ(block.level[1], 0);
  EXPECT_EQ(block.level[2], 2);
  EXPECT_EQ(block.level[3], 3);
  EXPECT_EQ(block.scaled_sum, 2 * -122);
  EXPECT_EQ(block.offset_128, 128 * 122);
  EXPECT_EQ(block.offset_8, 8 * 122);
}

TEST(Quantize, BlocksWithoutAUsableScaleAreZeroOrNan) {
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (!IsaSupported(isa)) continue;
    for (float odd : {0.0f, kInf, -kInf, kNan, -kNan, std::numeric_limits<float>::denorm_min()}) {
      std::vector<float> values(32, odd == 0 || std::abs(odd) < 1 ? 0.0f : 1.0f);
      values[7] = odd;
      QuantizedBlock block = Quantize(isa, values)[0];
      const QuantizedBlock zero = {};
      EXPECT_EQ(std::isnan(block.scale), !std::isfinite(odd)) << odd;
      if (!std::isfinite(odd)) block.scale = 0;
      EXPECT_EQ(std::memcmp(&block, &zero, sizeof(block)), 0) << odd;
    }
    const std::vector<float> largest(32, std::numeric_limits<float>::max());
    EXPECT_EQ(Quantize(isa, largest)[0].level[5], 127);
  }
}

// One value that is no number: every element of its row is NaN, and the rows beside it are what they were.
TEST(MatMul, BrokenRowsShow) {
  constexpr int kRows = 3, kColumns = 48, kInner = 96;
  Random random(11);
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (!IsaSupported(isa)) continue;
    ThreadPool pool(1, isa);
    for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kInt4Min}) {
      PackedMatrix weights(kColumns, kInner, format);
      std::vector<float> values(kInner);
      for (int n = 0; n < kColumns; ++n) {
        for (float& v : values) v = Normal(random);
        weights.SetRowFromFloats(n, values.data());
      }
      Activations x(kRows, kInner);
      x.Resize(kRows, kInner);
      for (int i = 0; i < kRows * kInner; ++i) x.Row(i / kInner)[i % kInner] = Normal(random);
      x.Row(1)[40] = std::numeric_limits<float>::infinity();
      std::vector<float> y(kRows * kColumns);
      pool.Run([&](Worker& worker) {
        for (int r = 0; r < kRows; ++r) x.QuantizeRow(r, isa);
        MatMul(worker, weights, x, y.data(), kColumns);
      });
      for (int i = 0; i < kRows * kColumns; ++i) EXPECT_EQ(std::isnan(y[i]), i / kColumns == 1) << i;
    }
  }
}

}  // namespace
}  // namespace dspark

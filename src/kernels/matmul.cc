#include "kernels/matmul.h"

#include <bit>
#include <cstring>

#include "core/check.h"
#include "core/float16.h"
#include "kernels/matmul_kernels.h"
#include "kernels/quantize.h"

namespace dspark {
namespace {

constexpr size_t kLine = 64;

// Bytes of one group's levels per block of K.
size_t LevelBytes(WeightFormat format) {
  return format == WeightFormat::kInt8 ? QuantizedLayout<WeightFormat::kInt8>::kLevelBytes
                                       : QuantizedLayout<WeightFormat::kInt4>::kLevelBytes;
}

size_t ScaleBytes(WeightFormat format) {
  return format == WeightFormat::kInt4Min ? QuantizedLayout<WeightFormat::kInt4Min>::kScaleBytes
                                          : QuantizedLayout<WeightFormat::kInt4>::kScaleBytes;
}

int Zero(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return QuantizedLayout<WeightFormat::kInt8>::kZero;
    case WeightFormat::kInt4:
      return QuantizedLayout<WeightFormat::kInt4>::kZero;
    default:
      return 0;
  }
}

size_t ElementBytes(WeightFormat format) { return format == WeightFormat::kF32 ? 4 : 2; }

size_t BytesOfGroup(WeightFormat format, int k) {
  const size_t bytes = IsQuantized(format)
                           ? size_t(k / kBlockSize) * (LevelBytes(format) + ScaleBytes(format))
                           : size_t(k) * kGroupRows * ElementBytes(format);
  return (bytes + kLine - 1) / kLine * kLine;
}

// One row's elements into their lane of a group of a float format.
template <class Element>
void PackElements(const uint8_t* src, int k, int lane, uint8_t* group) {
  for (int i = 0; i < k; ++i) {
    std::memcpy(group + (size_t(i) * kGroupRows + lane) * sizeof(Element), src + i * sizeof(Element),
                sizeof(Element));
  }
}

// One row's block into its lane of the group's levels and scales for that block.
void PackBlock(WeightFormat format, const BlockLevels& block, int lane, uint8_t* levels, uint8_t* scales) {
  if (format == WeightFormat::kInt8) {
    for (int unit = 0; unit < 8; ++unit) {
      std::memcpy(levels + unit * 64 + lane * 4, block.level + unit * 4, 4);
    }
  } else {
    uint8_t nibbles[16];
    for (int i = 0; i < 16; ++i) nibbles[i] = uint8_t(block.level[i] | block.level[i + 16] << 4);
    for (int unit = 0; unit < 4; ++unit) std::memcpy(levels + unit * 64 + lane * 4, nibbles + unit * 4, 4);
  }
  std::memcpy(scales + lane * 2, &block.scale, 2);
  if (format == WeightFormat::kInt4Min) std::memcpy(scales + 32 + lane * 2, &block.min, 2);
}

void UnpackBlock(WeightFormat format, const uint8_t* levels, const uint8_t* scales, int lane,
                 BlockLevels* block) {
  for (int i = 0; i < kBlockSize; ++i) {
    const bool nibbles = format != WeightFormat::kInt8;
    const int unit = nibbles ? i / 4 % 4 : i / 4;
    const uint8_t byte = levels[unit * 64 + lane * 4 + i % 4];
    block->level[i] = !nibbles ? byte : i < 16 ? byte & 15 : byte >> 4;
  }
  std::memcpy(&block->scale, scales + lane * 2, 2);
  block->min = 0;
  if (format == WeightFormat::kInt4Min) std::memcpy(&block->min, scales + 32 + lane * 2, 2);
}

// An odd number of units: rows of any length then spread over all sets of a cache.
size_t OddUnits(size_t size, size_t unit) { return ((size + unit - 1) / unit | 1) * unit; }
size_t ValueStride(int cols) { return OddUnits(cols, kLine / sizeof(float)); }
size_t BlockStride(int cols) {
  constexpr size_t kUnit = 4;  // blocks in 3 cache lines
  static_assert(kUnit * sizeof(QuantizedBlock) == 3 * kLine);
  return OddUnits((cols + kBlockSize - 1) / kBlockSize, kUnit);
}

}  // namespace

WeightFormat PackedFormatOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return WeightFormat::kF32;
    case TensorType::kF16:
      return WeightFormat::kF16;
    case TensorType::kBF16:
      return WeightFormat::kBf16;
    default:
      break;
  }
  const TensorTypeInfo& info = InfoOf(type);
  const WeightFormat format = info.level_bits == 8 ? WeightFormat::kInt8
                              : info.has_min       ? WeightFormat::kInt4Min
                                                   : WeightFormat::kInt4;
  DSPARK_CHECK(info.level_bits == 4 || (info.level_bits == 8 && !info.has_min));
  DSPARK_CHECK_EQ(info.zero, Zero(format));
  return format;
}

PackedMatrix::PackedMatrix(int n, int k, WeightFormat format, uint8_t* storage)
    : n_(n), k_(k), format_(format), storage_(storage) {
  DSPARK_CHECK(n > 0 && k > 0);
  DSPARK_CHECK(!IsQuantized(format) || k % kBlockSize == 0);
  DSPARK_CHECK_EQ(reinterpret_cast<uintptr_t>(storage) % kLine, 0u);
}

PackedMatrix::PackedMatrix(int n, int k, WeightFormat format) : PackedMatrix(n, k, format, nullptr) {
  owned_ = Buffer<uint8_t>(StorageBytes(n, k, format));
}

size_t PackedMatrix::StorageBytes(int n, int k, WeightFormat format) {
  return size_t((n + kGroupRows - 1) / kGroupRows) * BytesOfGroup(format, k);
}

size_t PackedMatrix::GroupBytes() const { return BytesOfGroup(format_, k_); }

void PackedMatrix::SetRow(int row, TensorType type, const uint8_t* src) {
  DSPARK_CHECK(row >= 0 && row < n_);
  DSPARK_CHECK(PackedFormatOf(type) == format_);
  const int lane = row % kGroupRows;
  uint8_t* group = Group(row / kGroupRows);
  if (!IsQuantized(format_)) {
    return format_ == WeightFormat::kF32 ? PackElements<uint32_t>(src, k_, lane, group)
                                         : PackElements<uint16_t>(src, k_, lane, group);
  }
  const TensorTypeInfo& info = InfoOf(type);
  const int blocks = k_ / kBlockSize;
  uint8_t* scales = group + blocks * LevelBytes(format_);
  for (int b = 0; b < blocks; ++b) {
    BlockLevels block;
    info.levels(src + size_t(b) * info.block_bytes, &block);
    PackBlock(format_, block, lane, group + b * LevelBytes(format_), scales + b * ScaleBytes(format_));
  }
}

void PackedMatrix::SetRowFromFloats(int row, const float* values) {
  DSPARK_CHECK(row >= 0 && row < n_);
  const int lane = row % kGroupRows;
  uint8_t* group = Group(row / kGroupRows);
  if (format_ == WeightFormat::kF32) {
    return PackElements<uint32_t>(reinterpret_cast<const uint8_t*>(values), k_, lane, group);
  }
  if (!IsQuantized(format_)) {
    for (int i = 0; i < k_; ++i) {
      const uint16_t half = format_ == WeightFormat::kF16 ? FloatToHalf(values[i]) : FloatToBf16(values[i]);
      std::memcpy(group + (size_t(i) * kGroupRows + lane) * sizeof(half), &half, sizeof(half));
    }
    return;
  }
  const int blocks = k_ / kBlockSize;
  uint8_t* scales = group + blocks * LevelBytes(format_);
  for (int b = 0; b < blocks; ++b) {
    PackBlock(format_, QuantizeWeights(format_, values + b * kBlockSize), lane,
              group + b * LevelBytes(format_), scales + b * ScaleBytes(format_));
  }
}

void PackedMatrix::SetRowGroup(int group, TensorType type, const uint8_t* src, size_t stride, int rows) {
  DSPARK_CHECK(rows >= 0 && rows <= kGroupRows);
  for (int r = 0; r < rows; ++r) SetRow(group * kGroupRows + r, type, src + r * stride);
}

void PackedMatrix::SetNext(const PackedMatrix& next) { next_ = {next.data(), next.GroupBytes(), next.n()}; }

void PackedMatrix::GetRow(int row, float* values) const {
  DSPARK_CHECK(row >= 0 && row < n_);
  const int lane = row % kGroupRows;
  const uint8_t* group = Group(row / kGroupRows);
  if (!IsQuantized(format_)) {
    const size_t bytes = ElementBytes(format_);
    for (int k = 0; k < k_; ++k) {
      uint32_t bits = 0;
      std::memcpy(&bits, group + (size_t(k) * kGroupRows + lane) * bytes, bytes);
      values[k] = format_ == WeightFormat::kF32   ? std::bit_cast<float>(bits)
                  : format_ == WeightFormat::kF16 ? HalfToFloat(uint16_t(bits))
                                                  : Bf16ToFloat(uint16_t(bits));
    }
    return;
  }
  const int blocks = k_ / kBlockSize;
  const uint8_t* scales = group + blocks * LevelBytes(format_);
  for (int b = 0; b < blocks; ++b) {
    BlockLevels block;
    UnpackBlock(format_, group + b * LevelBytes(format_), scales + b * ScaleBytes(format_), lane, &block);
    const float scale = HalfToFloat(block.scale);
    for (int i = 0; i < kBlockSize; ++i) {
      float& value = values[b * kBlockSize + i] = scale * float(int(block.level[i]) - Zero(format_));
      if (format_ == WeightFormat::kInt4Min)
        value += HalfToFloat(block.min);  // adding 0 would lose the sign of -0
    }
  }
}

Activations::Activations(int max_rows, int max_cols)
    : max_rows_(max_rows),
      max_cols_(max_cols),
      values_(max_rows * ValueStride(max_cols)),
      quantized_(max_rows * BlockStride(max_cols)) {
  Resize(max_rows, max_cols);
}

size_t Activations::BytesFor(int max_rows, int max_cols) {
  return max_rows * (ValueStride(max_cols) * sizeof(float) + BlockStride(max_cols) * sizeof(QuantizedBlock));
}

void Activations::Resize(int rows, int cols) {
  DSPARK_CHECK(rows >= 0 && rows <= max_rows_);
  DSPARK_CHECK(cols >= 0 && cols <= max_cols_);
  rows_ = rows;
  cols_ = cols;
  stride_ = ValueStride(cols);
  block_stride_ = BlockStride(cols);
}

void Activations::QuantizeColumns(int r, Range columns, Isa isa) {
  DSPARK_CHECK(r >= 0 && r < rows_ && columns.end <= cols_);
  DSPARK_CHECK(columns.begin % kBlockSize == 0 && columns.end % kBlockSize == 0);
  const float* values = Row(r) + columns.begin;
  const int blocks = columns.size() / kBlockSize;
  QuantizedBlock* out = quantized_.data() + size_t(r) * block_stride_ + columns.begin / kBlockSize;
  switch (isa) {
    case Isa::kReference:
      return QuantizeReference(values, blocks, out);
    case Isa::kAvx2:
    case Isa::kAvx512Vnni:
      return QuantizeAvx2(values, blocks, out);
  }
}

// Whole blocks of 32, so that a worker can quantise what it has computed.
Range MatMulColumns(const Worker& worker, int n) { return worker.Share(n, kBlockSize); }

void MatMul(const Worker& worker, const PackedMatrix& w, const Activations& x, float* y, size_t y_stride,
            Store store) {
  DSPARK_CHECK_EQ(x.cols(), w.k());
  const Range columns = MatMulColumns(worker, w.n());
  if (x.rows() == 0 || columns.size() == 0) return;
  const int first_group = columns.begin / kGroupRows, end_group = (columns.end + kGroupRows - 1) / kGroupRows;
  const size_t next_group = MatMulColumns(worker, w.next_.n).begin / kGroupRows;
  const MatMulTask task = {
      .format = w.format(),
      .n = w.n(),
      .k = w.k(),
      .rows = x.rows(),
      .groups = w.data(),
      .group_bytes = w.GroupBytes(),
      .quantized = x.Quantized(0),
      .quantized_stride = x.block_stride(),
      .values = x.Row(0),
      .values_stride = x.stride(),
      .y = y,
      .y_stride = y_stride,
      .store = store,
      .first_group = first_group,
      .end_group = end_group,
      .share_end = w.data() + end_group * w.GroupBytes(),
      .next_share = w.next_.data ? w.next_.data + next_group * w.next_.group_bytes : w.data()};
  switch (worker.isa()) {
    case Isa::kReference:
      return MatMulReference(task);
    case Isa::kAvx2:
      return MatMulAvx2(task);
    case Isa::kAvx512Vnni:
      return MatMulAvx512(task);
  }
}

}  // namespace dspark

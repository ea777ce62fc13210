// y[M, N] = x[M, K] · Wᵀ for M = 1 … 512 rows with the weights read once per call: the kernel everything
// stands on.
//
// Layout of a packed matrix: rows of W interleaved in groups of 16, K in blocks of 32. Quantised formats keep
// one fp16 scale (and min) per row and block beside the levels; activations are quantised to int8 per row and
// block of 32.
//
// The arithmetic of one output element is fixed, whatever M, the batch, the number of workers or the
// instruction set:
//   acc = 0; for each block b of K in order:
//     dot  = Σ_{i<32} (level - zero) * a          exact int32
//     acc  = fma(float(dot), scale_w[b] * scale_x[b], acc)
//     acc  = fma(min_w[b], scale_x[b] * float(Σ a), acc)       formats with a min only
// so a verify of M rows equals M single steps bit for bit, and every instruction set equals the reference
// exactly. Float formats: acc = fma(w[k], x[k], acc) for k = 0 … K-1 in order.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "core/tensor_type.h"
#include "core/thread_pool.h"

namespace dspark {

enum class WeightFormat {
  kF32,
  kF16,
  kBf16,
  kInt8,     // level - 128, one fp16 scale per row and block
  kInt4,     // level - 8, one fp16 scale
  kInt4Min,  // scale * level + min, two fp16
};

constexpr bool IsQuantized(WeightFormat format) { return format >= WeightFormat::kInt8; }

// The packed format that holds a file's type without losing its values. kI64 and unknown types: CHECK.
WeightFormat PackedFormatOf(TensorType type);

enum class Store {
  kSet,  // y = x · Wᵀ
  kAdd,  // y += x · Wᵀ (the residual)
};

class Activations;

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Zeroed, N padded to 16 inside. Quantised formats need K % 32 == 0.
  PackedMatrix(int n, int k, WeightFormat format);
  // The same in `storage`: StorageBytes zeroed bytes, 64-byte aligned, that outlive the matrix. A model packs
  // all its matrices into one Buffer this way: in huge pages a pass is a fifth faster than in a mapping per
  // matrix.
  PackedMatrix(int n, int k, WeightFormat format, uint8_t* storage);
  static size_t StorageBytes(int n, int k, WeightFormat format);  // a multiple of 64

  // Fills row `row` from K values in a file's encoding; PackedFormatOf(type) must be this matrix's format.
  void SetRow(int row, TensorType type, const uint8_t* src);
  // The same, 16 rows [group * 16, group * 16 + 16) at once (fast path of loading); row r's bytes at src + r
  // * stride.
  void SetRowGroup(int group, TensorType type, const uint8_t* src, size_t stride, int rows);
  // Fills row `row` from K floats: rounded to nearest even for kF16 and kBf16, by QuantizeWeights
  // (quantize.h) for quantised formats.
  void SetRowFromFloats(int row, const float* values);
  // Names the matrix that a pass reads after this one: MatMul asks memory for the beginning of a worker's
  // share of it while the end of its share of this one is still being used, so that memory does not idle at a
  // barrier.
  void SetNext(const PackedMatrix& next);
  // Decodes row `row` to K floats (embedding look-up in a tied head).
  void GetRow(int row, float* values) const;

  int n() const { return n_; }
  int k() const { return k_; }
  WeightFormat format() const { return format_; }
  size_t Bytes() const { return n_ > 0 ? StorageBytes(n_, k_, format_) : 0; }
  const uint8_t* data() const { return storage_ ? storage_ : owned_.data(); }
  // Bytes of one group of 16 rows, all of K.
  size_t GroupBytes() const;

 private:
  uint8_t* Group(int group) { return (storage_ ? storage_ : owned_.data()) + size_t(group) * GroupBytes(); }
  const uint8_t* Group(int group) const { return data() + size_t(group) * GroupBytes(); }

  int n_ = 0, k_ = 0;
  WeightFormat format_ = WeightFormat::kF32;
  Buffer<uint8_t> owned_;
  uint8_t* storage_ = nullptr;  // where not owned

  friend void MatMul(const Worker&, const PackedMatrix&, const Activations&, float*, size_t, Store);
  struct Next {
    const uint8_t* data = nullptr;
    size_t group_bytes = 0;
    int n = 0;
  } next_;
};

// 32 activations of one row as int8, with all a kernel needs beside them: 48 bytes that one pointer reaches.
struct QuantizedBlock {
  int8_t level[32];    // round-to-nearest-even(x * (1 / scale)), -127 … 127
  float scale;         // amax / 127
  float scaled_sum;    // scale * Σ level: the factor of a weight block's min
  int32_t offset_128;  // -128 * Σ level: where a dot product with unsigned 8-bit levels starts
  int32_t offset_8;    // -8 * Σ level: the same for 4 bits without min
};

// M rows of activations, in fp32 and (after QuantizeRow) as blocks of int8.
class Activations {
 public:
  Activations() = default;
  Activations(int max_rows, int max_cols);  // any shape up to this may be used
  static size_t BytesFor(int max_rows, int max_cols);

  // Sets the shape in use for the calls that follow (on one worker, before a barrier). Rows keep their
  // content if the columns stay the same; otherwise it is undefined.
  void Resize(int rows, int cols);
  int rows() const { return rows_; }
  int cols() const { return cols_; }
  float* Row(int r) { return values_.data() + size_t(r) * stride_; }
  const float* Row(int r) const { return values_.data() + size_t(r) * stride_; }

  // Fills the int8 side of row r. cols() % 32 == 0. A block is all zeros when its scale would be subnormal.
  // One that holds a NaN or an infinity has scale NaN, and so have all products with it: what went wrong
  // upstream must reach the logits, where it is noticed. Rows share no cache line, so workers may quantise
  // rows side by side.
  void QuantizeRow(int r, Isa isa) { QuantizeColumns(r, {0, cols_}, isa); }
  // The same for columns [begin, end) only, multiples of 32: what a worker has just computed itself.
  void QuantizeColumns(int r, Range columns, Isa isa);

  const QuantizedBlock* Quantized(int r) const {
    return quantized_.data() + size_t(r) * block_stride_;
  }  // [K/32]
  size_t Bytes() const { return values_.Bytes() + quantized_.Bytes(); }
  size_t stride() const { return stride_; }              // elements from row to row, not a power of two
  size_t block_stride() const { return block_stride_; }  // blocks from row to row, not a power of two

 private:
  int max_rows_ = 0, max_cols_ = 0;
  int rows_ = 0, cols_ = 0;
  size_t stride_ = 0, block_stride_ = 0;
  Buffer<float> values_;
  Buffer<QuantizedBlock> quantized_;
};

// This worker's share of the columns of y. Rows of y are `y_stride` floats apart. No barrier inside: x must
// be complete before, and y is complete after the next barrier. Quantised formats read x's int8 side, float
// formats its fp32 side.
void MatMul(const Worker& worker, const PackedMatrix& w, const Activations& x, float* y, size_t y_stride,
            Store store = Store::kSet);

// The columns of y that MatMul gives this worker, from a multiple of 32 to a multiple of 32 or n: ops that
// only touch these need no barrier after MatMul.
Range MatMulColumns(const Worker& worker, int n);

}  // namespace dspark

// A matrix whose rows are looked up one by one (Markov tables): each row lies in one piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "core/isa.h"

namespace dspark {

class RowTable {
 public:
  RowTable() = default;
  // [n, k] in fp32, or in fp16 (BF16's values are exact there from 6e-5 up, and within 3e-8 below).
  RowTable(int n, int k, bool fp32);

  int n() const { return n_; }
  int k() const { return k_; }
  size_t Bytes() const { return floats_.Bytes() + halves_.Bytes(); }

  void SetRow(int row, const float* values);
  void GetRow(int row, float* values) const;
  // Σ row[i] · x[i], summed in one fixed order on every instruction set.
  float Dot(Isa isa, int row, const float* x) const;
  // Asks memory for a row.
  void Prefetch(int row) const;

 private:
  size_t At(int row) const { return size_t(row) * size_t(k_); }
  int n_ = 0, k_ = 0;
  Buffer<float> floats_;  // one of these holds [n, k]
  Buffer<uint16_t> halves_;
};

}  // namespace dspark

// Rotary position embeddings: the table that Rope (ops.h) reads.
#pragma once

#include <span>

#include "core/buffer.h"

namespace dspark {

// Cosines and sines of every position's angles. angle[i] = position · θ^(-2i/dim) / divisor[i] with inverse
// frequency and product rounded to fp32 as Hugging Face's implementations round them, sine and cosine correct
// to fp32.
class RopeTable {
 public:
  RopeTable() = default;
  // positions < 2^20; dim even. `divisors`: dim/2 values (GGUF's rope_freqs), or empty for none.
  RopeTable(int positions, int dim, float theta, std::span<const float> divisors = {});

  // Bytes of a table of these arguments, before there is one.
  static size_t BytesFor(int positions, int dim) { return size_t(positions) * size_t(dim) * sizeof(float); }

  int positions() const { return positions_; }
  size_t Bytes() const { return values_.Bytes(); }
  // dim/2 cosines, then dim/2 sines.
  const float* Row(int position) const { return values_.data() + size_t(position) * size_t(dim_); }

 private:
  int positions_ = 0, dim_ = 0;
  Buffer<float> values_;
};

}  // namespace dspark

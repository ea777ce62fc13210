#include "kernels/row_table.h"

#include <algorithm>

#include "core/float16.h"
#include "kernels/ops.h"

namespace dspark {

RowTable::RowTable(int n, int k, bool fp32)
    : n_(n), k_(k), floats_(fp32 ? size_t(n) * size_t(k) : 0), halves_(fp32 ? 0 : size_t(n) * size_t(k)) {}

void RowTable::SetRow(int row, const float* values) {
  if (halves_.size() == 0) {
    std::copy_n(values, k_, floats_.data() + At(row));
  } else {
    for (int i = 0; i < k_; ++i) halves_[At(row) + size_t(i)] = FloatToHalf(values[i]);
  }
}

void RowTable::GetRow(int row, float* values) const {
  if (halves_.size() == 0) {
    std::copy_n(floats_.data() + At(row), k_, values);
  } else {
    for (int i = 0; i < k_; ++i) values[i] = HalfToFloat(halves_[At(row) + size_t(i)]);
  }
}

float RowTable::Dot(Isa isa, int row, const float* x) const {
  return halves_.size() == 0 ? dspark::Dot(isa, floats_.data() + At(row), x, k_)
                             : dspark::Dot(isa, halves_.data() + At(row), x, k_);
}

void RowTable::Prefetch(int row) const {
  constexpr size_t kLine = 64;
  const bool fp32 = halves_.size() == 0;
  const size_t bytes = size_t(k_) * (fp32 ? sizeof(float) : sizeof(uint16_t));
  const char* begin = fp32 ? reinterpret_cast<const char*>(floats_.data() + At(row))
                           : reinterpret_cast<const char*>(halves_.data() + At(row));
  for (size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(begin + i);
}

}  // namespace dspark

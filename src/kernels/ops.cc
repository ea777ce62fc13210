#include "kernels/ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"
#include "kernels/ops_impl.h"

namespace dspark {
namespace {

const OpsTable& OpsFor(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return kOpsRef;
    case Isa::kAvx2:
      return kOpsAvx2;
    case Isa::kAvx512Vnni:
      return kOpsAvx512;
  }
  CheckFailed(__FILE__, __LINE__, "unknown Isa");
}

}  // namespace

void RmsNorm(Isa isa, const float* x, const float* w, int n, float eps, float* y) {
  const OpsTable& ops = OpsFor(isa);
  const float mean = ops.sum_of_squares(x, n) / float(n);
  ops.scale_by(x, w, n, 1.0f / std::sqrt(mean + eps), y);
}

void Rope(Isa isa, float* x, int heads, int head_dim, const float* cos_sin, bool interleaved) {
  OpsFor(isa).rope(x, heads, head_dim, cos_sin, interleaved);
}

void SwiGlu(Isa isa, float* gate, const float* up, int n) { OpsFor(isa).swiglu(gate, up, n); }

void Exp(Isa isa, const float* x, int n, float* y) { OpsFor(isa).exp(x, n, y); }

float Dot(Isa isa, const float* x, const float* y, int n) { return OpsFor(isa).dot(x, y, n); }
float Dot(Isa isa, const uint16_t* x, const float* y, int n) { return OpsFor(isa).dot_half(x, y, n); }

size_t SumAtLeast(Isa isa, std::span<const float> x, const float* w, float factor, float limit, size_t begin,
                  std::span<int32_t> ids, int* count) {
  *count = 0;
  return OpsFor(isa).sum_at_least(x.data(), w, factor, begin, x.size(), limit, int(ids.size()), ids.data(),
                                  count);
}

int ArgMax(Isa isa, std::span<const float> x) {
  const OpsTable& ops = OpsFor(isa);
  const size_t at = ops.find(x.data(), x.size(), ops.max(x.data(), x.size(), 1.0f));
  return at < x.size() ? int(at) : 0;
}

// Walks x once, keeping candidates above a threshold that only rises: whenever they fill the buffer, the best
// k stay and the worst of these is the new threshold. Later values must exceed it, for on ties the earlier
// index wins.
void TopK(Isa isa, std::span<const float> x, int k, int32_t* ids, float* values) {
  DSPARK_CHECK(k >= 1 && size_t(k) <= x.size());
  const OpsTable& ops = OpsFor(isa);
  const auto better = [&](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };

  constexpr int kOnStack = 4096;
  std::array<int32_t, kOnStack> on_stack;
  std::vector<int32_t> on_heap(4 * k > kOnStack ? 4 * size_t(k) : 0);
  int32_t* kept = on_heap.empty() ? on_stack.data() : on_heap.data();
  const int capacity = std::max(4 * k, 128);

  int count = 0;
  bool any = true;  // no threshold yet
  float threshold = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < x.size();) {
    i = ops.above(x.data(), i, x.size(), threshold, any, capacity, kept, &count);
    if (count < capacity) break;
    std::nth_element(kept, kept + (k - 1), kept + count, better);
    count = k;
    threshold = x[kept[k - 1]];
    any = false;
  }
  const int found = std::min(count, k);
  if (found < count) std::nth_element(kept, kept + (found - 1), kept + count, better);
  std::sort(kept, kept + found, better);
  std::copy(kept, kept + found, ids);
  for (int at = found, i = 0; at < k; ++i) {
    if (std::isnan(x[i])) ids[at++] = i;
  }
  for (int i = 0; i < k; ++i) values[i] = x[ids[i]];
}

float LogSumExp(Isa isa, std::span<const float> x) {
  const OpsTable& ops = OpsFor(isa);
  const float max = ops.max(x.data(), x.size(), 1.0f);
  if (std::isinf(max)) return max;
  return max + std::log(ops.sum_exp(x.data(), x.size(), 1.0f, max, nullptr));
}

void Softmax(Isa isa, std::span<const float> x, float inverse_temperature, float* p) {
  const OpsTable& ops = OpsFor(isa);
  const float max = ops.max(x.data(), x.size(), inverse_temperature);
  const float sum = ops.sum_exp(x.data(), x.size(), inverse_temperature, max, p);
  ops.multiply(p, x.size(), 1.0f / sum);
}

}  // namespace dspark

// The ops of ops.h, written once over a vector class of simd.h. ops_ref.cc, ops_avx2.cc and ops_avx512.cc
// instantiate them for their instruction set; ops.cc chooses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simd.h"

namespace dspark {

// One instruction set's ops. Spans are pointer and length here.
struct OpsTable {
  float (*sum_of_squares)(const float* x, int n);
  void (*scale_by)(const float* x, const float* w, int n, float factor, float* y);  // y = x · factor ⊙ w
  void (*rope)(float* x, int heads, int head_dim, const float* cos_sin, bool interleaved);
  void (*swiglu)(float* gate, const float* up, int n);
  void (*exp)(const float* x, int n, float* y);
  float (*max)(const float* x, size_t n,
               float factor);  // of x · factor; NaN never wins; -inf when nothing else
  float (*sum_exp)(const float* x, size_t n, float factor, float shift,
                   float* p);  // of p = exp(x·factor - shift)
  void (*multiply)(float* x, size_t n, float factor);
  size_t (*find)(const float* x, size_t n, float value);  // first index, n when absent
  // Appends to `ids` the indices i ≥ begin with x[i] > threshold (any number, when `any`), in order, until x
  // ends or `capacity` are there. Returns the index to go on from.
  size_t (*above)(const float* x, size_t begin, size_t n, float threshold, bool any, int capacity,
                  int32_t* ids, int* count);
  float (*dot)(const float* x, const float* y, int n);
  float (*dot_half)(const uint16_t* x, const float* y, int n);  // x in fp16
  size_t (*sum_at_least)(const float* x, const float* w, float factor, size_t begin, size_t n, float limit,
                         int capacity, int32_t* ids, int* count);  // ops.h
};

extern const OpsTable kOpsRef;
extern const OpsTable kOpsAvx2;
extern const OpsTable kOpsAvx512;

template <class V>
struct OpsOf {
  static constexpr float kInf = __builtin_inff();

  // Four vectors of partial sums (element i goes to lane i mod 64), added pairwise at the end: the order that
  // every reduction here has.
  struct Sum {
    V part[4] = {V::Set(0), V::Set(0), V::Set(0), V::Set(0)};
    float Total() const { return ((part[0] + part[2]) + (part[1] + part[3])).SumOfLanes(); }
  };

  // body(vector number, offset, lanes in use): 16 lanes for all but the last vector.
  template <class Body>
  [[gnu::always_inline]] static void ForEachVector(size_t n, Body body) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
      body(0, i, 16);
      body(1, i + 16, 16);
      body(2, i + 32, 16);
      body(3, i + 48, 16);
    }
    for (int part = 0; i < n; i += 16, ++part) body(part, i, n - i < 16 ? int(n - i) : 16);
  }

  [[gnu::always_inline]] static V Load(const float* p, int lanes, float other = 0) {
    return lanes == 16 ? V::Load(p) : V::LoadFirst(p, lanes, other);
  }
  [[gnu::always_inline]] static void Store(V v, float* p, int lanes) {
    if (lanes == 16) {
      v.Store(p);
    } else {
      v.StoreFirst(p, lanes);
    }
  }

  static float SumOfSquares(const float* x, int n) {
    Sum sum;
    ForEachVector(size_t(n), [&](int part, size_t i, int lanes) {
      const V v = Load(x + i, lanes);
      sum.part[part] = V::Fma(v, v, sum.part[part]);
    });
    return sum.Total();
  }

  static void ScaleBy(const float* x, const float* w, int n, float factor, float* y) {
    ForEachVector(size_t(n), [&](int, size_t i, int lanes) {
      Store(Load(x + i, lanes) * V::Set(factor) * Load(w + i, lanes), y + i, lanes);
    });
  }

  // Plain code: the compiler vectorises it, and without reductions the bits cannot differ.
  static void Rope(float* x, int heads, int head_dim, const float* cos_sin, bool interleaved) {
    const int half = head_dim / 2;
    const float* __restrict cosine = cos_sin;
    const float* __restrict sine = cos_sin + half;
    for (int h = 0; h < heads; ++h, x += head_dim) {
      float* __restrict first = x;
      if (interleaved) {
        for (int i = 0; i < half; ++i) {
          const float a = first[2 * i], b = first[2 * i + 1];
          first[2 * i] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
          first[2 * i + 1] = __builtin_fmaf(b, cosine[i], a * sine[i]);
        }
      } else {
        float* __restrict second = x + half;
        for (int i = 0; i < half; ++i) {
          const float a = first[i], b = second[i];
          first[i] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
          second[i] = __builtin_fmaf(b, cosine[i], a * sine[i]);
        }
      }
    }
  }

  static void SwiGlu(float* gate, const float* up, int n) {
    const V one = V::Set(1);
    ForEachVector(size_t(n), [&](int, size_t i, int lanes) {
      const V g = Load(gate + i, lanes);
      Store(g / (one + dspark::Exp(V::Set(0) - g)) * Load(up + i, lanes), gate + i, lanes);
    });
  }

  static void Exp(const float* x, int n, float* y) {
    ForEachVector(size_t(n),
                  [&](int, size_t i, int lanes) { Store(dspark::Exp(Load(x + i, lanes)), y + i, lanes); });
  }

  static float Max(const float* x, size_t n, float factor) {
    V best[4] = {V::Set(-kInf), V::Set(-kInf), V::Set(-kInf), V::Set(-kInf)};
    ForEachVector(n, [&](int part, size_t i, int lanes) {
      best[part] = V::Max(Load(x + i, lanes, __builtin_nanf("")) * V::Set(factor), best[part]);
    });
    return V::Max(V::Max(best[0], best[2]), V::Max(best[1], best[3])).MaxOfLanes();
  }

  static float SumExp(const float* x, size_t n, float factor, float shift, float* p) {
    Sum sum;
    ForEachVector(n, [&](int part, size_t i, int lanes) {
      const V e = dspark::Exp(Load(x + i, lanes, -kInf) * V::Set(factor) - V::Set(shift));
      sum.part[part] = sum.part[part] + V::KeepFirst(e, lanes, V::Set(0));
      if (p) Store(e, p + i, lanes);
    });
    return sum.Total();
  }

  static void Multiply(float* x, size_t n, float factor) {
    ForEachVector(
        n, [&](int, size_t i, int lanes) { Store(Load(x + i, lanes) * V::Set(factor), x + i, lanes); });
  }

  static size_t Find(const float* x, size_t n, float value) {
    for (size_t i = 0; i < n; i += 16) {
      const V v = i + 16 <= n ? V::Load(x + i) : V::LoadFirst(x + i, int(n - i), __builtin_nanf(""));
      if (const uint32_t mask = V::EqualMask(v, V::Set(value))) return i + size_t(__builtin_ctz(mask));
    }
    return n;
  }

  static size_t Above(const float* x, size_t begin, size_t n, float threshold, bool any, int capacity,
                      int32_t* ids, int* count) {
    const V limit = V::Set(threshold);
    size_t i = begin;
    for (; i < n && *count < capacity; i += 16) {
      for (; !any && i + 64 <= n; i += 64) {  // most of a vocabulary is far below: one test for four vectors
        V best = limit;
        for (int part = 0; part < 4; ++part) best = V::Max(V::Load(x + i + 16 * part), best);
        if (V::GreaterMask(best, limit)) break;
      }
      if (i >= n) break;
      const V v = i + 16 <= n ? V::Load(x + i) : V::LoadFirst(x + i, int(n - i), __builtin_nanf(""));
      for (uint32_t mask = any ? V::EqualMask(v, v) : V::GreaterMask(v, limit); mask; mask &= mask - 1) {
        if (*count == capacity) return i + size_t(__builtin_ctz(mask));
        ids[(*count)++] = int32_t(i) + __builtin_ctz(mask);
      }
    }
    return i < n ? i : n;
  }

  static float Dot(const float* x, const float* y, int n) {
    Sum sum;
    ForEachVector(size_t(n), [&](int part, size_t i, int lanes) {
      sum.part[part] = V::Fma(Load(x + i, lanes), Load(y + i, lanes), sum.part[part]);
    });
    return sum.Total();
  }

  static float DotHalf(const uint16_t* x, const float* y, int n) {
    Sum sum;
    ForEachVector(size_t(n), [&](int part, size_t i, int lanes) {
      const V h = lanes == 16 ? V::LoadHalf(x + i) : V::LoadHalfFirst(x + i, lanes);
      sum.part[part] = V::Fma(h, Load(y + i, lanes), sum.part[part]);
    });
    return sum.Total();
  }

  static size_t SumAtLeast(const float* x, const float* w, float factor, size_t begin, size_t n, float limit,
                           int capacity, int32_t* ids, int* count) {
    const auto sum = [&](size_t i) { return V::Fma(V::Load(w + i), V::Set(factor), V::Load(x + i)); };
    const V least = V::Set(limit);
    size_t i = begin;
    for (; i < n && *count < capacity; i += 16) {
      for (; i + 64 <= n; i += 64) {
        const V best = V::Max(V::Max(sum(i), sum(i + 16)), V::Max(sum(i + 32), sum(i + 48)));
        if (V::GreaterMask(least, best) != 0xffff) break;
      }
      if (i >= n) break;
      const int lanes = n - i < 16 ? int(n - i) : 16;
      const V s = V::Fma(Load(w + i, lanes), V::Set(factor), Load(x + i, lanes, -kInf));
      for (uint32_t mask = ~V::GreaterMask(least, s) & 0xffff; mask; mask &= mask - 1) {
        if (*count == capacity) return i + size_t(__builtin_ctz(mask));
        ids[(*count)++] = int32_t(i) + __builtin_ctz(mask);
      }
    }
    return i < n ? i : n;
  }

  static constexpr OpsTable Table() {
    return {SumOfSquares, ScaleBy, Rope,  SwiGlu, Exp,     Max,       SumExp,
            Multiply,     Find,    Above, Dot,    DotHalf, SumAtLeast};
  }
};

}  // namespace dspark

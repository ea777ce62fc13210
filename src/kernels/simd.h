// Sixteen floats as one value, once per instruction set, so that the maths of an op is written once and gives
// the same bits everywhere: every operation is the IEEE one, lane by lane, and reductions add lanes in one
// fixed order.
//
// Only files compiled for an instruction set see its class; templates on the class keep their code apart when
// linked.
#pragma once

#include <cstdint>
#if defined(__AVX2__)
// GCC 12 calls its own _mm*_undefined_* uninitialised (PR 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <cmath>
#include <initializer_list>

#include "core/float16.h"
#endif

namespace dspark {

// Common to all: Fma(a, b, c) = a * b + c rounded once. Max(a, b) = a > b ? a : b, so b where either is NaN.
// IfLess(a, b, x, y) = a < b ? x : y, IfGreater alike. KeepFirst(v, n, other) = lane < n ? v : other.
// GreaterMask(a, b) has bit i set where lane i of a > b; EqualMask alike.
// ShiftExponent(v, t) adds t << 23 to the bits of v. Halves convert with round to nearest even.
// SumOfLanes adds lanes 8 apart, then 4, 2, 1.

#if defined(__AVX2__)

[[gnu::always_inline]] inline float SumOfLanes256(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

[[gnu::always_inline]] inline float MaxOfLanes256(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

class VecAvx2 {
 public:
  static VecAvx2 Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static VecAvx2 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static VecAvx2 LoadFirst(const float* p, int n, float other) {
    alignas(32) float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = i < n ? p[i] : other;
    return Load(lane);
  }
  static VecAvx2 LoadHalf(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
  }
  static VecAvx2 LoadHalfFirst(const uint16_t* p, int n) {
    alignas(32) uint16_t lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = i < n ? p[i] : 0;
    return LoadHalf(lane);
  }
  void Store(float* p) const {
    _mm256_storeu_ps(p, low_);
    _mm256_storeu_ps(p + 8, high_);
  }
  void StoreFirst(float* p, int n) const {
    alignas(32) float lane[16];
    Store(lane);
    for (int i = 0; i < n; ++i) p[i] = lane[i];
  }
  void StoreHalf(uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(low_, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(high_, _MM_FROUND_TO_NEAREST_INT));
  }

  friend VecAvx2 operator+(VecAvx2 a, VecAvx2 b) {
    return {_mm256_add_ps(a.low_, b.low_), _mm256_add_ps(a.high_, b.high_)};
  }
  friend VecAvx2 operator-(VecAvx2 a, VecAvx2 b) {
    return {_mm256_sub_ps(a.low_, b.low_), _mm256_sub_ps(a.high_, b.high_)};
  }
  friend VecAvx2 operator*(VecAvx2 a, VecAvx2 b) {
    return {_mm256_mul_ps(a.low_, b.low_), _mm256_mul_ps(a.high_, b.high_)};
  }
  friend VecAvx2 operator/(VecAvx2 a, VecAvx2 b) {
    return {_mm256_div_ps(a.low_, b.low_), _mm256_div_ps(a.high_, b.high_)};
  }
  static VecAvx2 Fma(VecAvx2 a, VecAvx2 b, VecAvx2 c) {
    return {_mm256_fmadd_ps(a.low_, b.low_, c.low_), _mm256_fmadd_ps(a.high_, b.high_, c.high_)};
  }
  static VecAvx2 Max(VecAvx2 a, VecAvx2 b) {
    return {_mm256_max_ps(a.low_, b.low_), _mm256_max_ps(a.high_, b.high_)};
  }
  static VecAvx2 IfLess(VecAvx2 a, VecAvx2 b, VecAvx2 x, VecAvx2 y) { return IfGreater(b, a, x, y); }
  static VecAvx2 IfGreater(VecAvx2 a, VecAvx2 b, VecAvx2 x, VecAvx2 y) {
    return {_mm256_blendv_ps(y.low_, x.low_, _mm256_cmp_ps(a.low_, b.low_, _CMP_GT_OQ)),
            _mm256_blendv_ps(y.high_, x.high_, _mm256_cmp_ps(a.high_, b.high_, _CMP_GT_OQ))};
  }
  static VecAvx2 KeepFirst(VecAvx2 v, int n, VecAvx2 other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
    const __m256 high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane));
    return {_mm256_blendv_ps(other.low_, v.low_, low), _mm256_blendv_ps(other.high_, v.high_, high)};
  }
  static uint32_t GreaterMask(VecAvx2 a, VecAvx2 b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.low_, b.low_, _CMP_GT_OQ))) |
           uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.high_, b.high_, _CMP_GT_OQ))) << 8;
  }
  static uint32_t EqualMask(VecAvx2 a, VecAvx2 b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.low_, b.low_, _CMP_EQ_OQ))) |
           uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.high_, b.high_, _CMP_EQ_OQ))) << 8;
  }
  static VecAvx2 ShiftExponent(VecAvx2 v, VecAvx2 t) {
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v.low_),
                                                 _mm256_slli_epi32(_mm256_castps_si256(t.low_), 23))),
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v.high_),
                                                 _mm256_slli_epi32(_mm256_castps_si256(t.high_), 23)))};
  }
  float SumOfLanes() const { return SumOfLanes256(_mm256_add_ps(low_, high_)); }
  float MaxOfLanes() const { return MaxOfLanes256(_mm256_max_ps(low_, high_)); }
  float First() const { return _mm256_cvtss_f32(low_); }

  VecAvx2() = default;

 private:
  VecAvx2(__m256 low, __m256 high) : low_(low), high_(high) {}
  __m256 low_, high_;
};

#if defined(__AVX512F__)

class VecAvx512 {
 public:
  static VecAvx512 Set(float x) { return _mm512_set1_ps(x); }
  static VecAvx512 Load(const float* p) { return _mm512_loadu_ps(p); }
  static VecAvx512 LoadFirst(const float* p, int n, float other) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(other), FirstLanes(n), p);
  }
  static VecAvx512 LoadHalf(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static VecAvx512 LoadHalfFirst(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(n), p));
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v_); }
  void StoreFirst(float* p, int n) const { _mm512_mask_storeu_ps(p, FirstLanes(n), v_); }
  void StoreHalf(uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v_, _MM_FROUND_TO_NEAREST_INT));
  }

  friend VecAvx512 operator+(VecAvx512 a, VecAvx512 b) { return _mm512_add_ps(a.v_, b.v_); }
  friend VecAvx512 operator-(VecAvx512 a, VecAvx512 b) { return _mm512_sub_ps(a.v_, b.v_); }
  friend VecAvx512 operator*(VecAvx512 a, VecAvx512 b) { return _mm512_mul_ps(a.v_, b.v_); }
  friend VecAvx512 operator/(VecAvx512 a, VecAvx512 b) { return _mm512_div_ps(a.v_, b.v_); }
  static VecAvx512 Fma(VecAvx512 a, VecAvx512 b, VecAvx512 c) { return _mm512_fmadd_ps(a.v_, b.v_, c.v_); }
  static VecAvx512 Max(VecAvx512 a, VecAvx512 b) { return _mm512_max_ps(a.v_, b.v_); }
  static VecAvx512 IfLess(VecAvx512 a, VecAvx512 b, VecAvx512 x, VecAvx512 y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v_, b.v_, _CMP_LT_OQ), y.v_, x.v_);
  }
  static VecAvx512 IfGreater(VecAvx512 a, VecAvx512 b, VecAvx512 x, VecAvx512 y) {
    return IfLess(b, a, x, y);
  }
  static VecAvx512 KeepFirst(VecAvx512 v, int n, VecAvx512 other) {
    return _mm512_mask_blend_ps(FirstLanes(n), other.v_, v.v_);
  }
  static uint32_t GreaterMask(VecAvx512 a, VecAvx512 b) { return _mm512_cmp_ps_mask(a.v_, b.v_, _CMP_GT_OQ); }
  static uint32_t EqualMask(VecAvx512 a, VecAvx512 b) { return _mm512_cmp_ps_mask(a.v_, b.v_, _CMP_EQ_OQ); }
  static VecAvx512 ShiftExponent(VecAvx512 v, VecAvx512 t) {
    const __m512i shift = _mm512_slli_epi32(_mm512_castps_si512(t.v_), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v.v_), shift));
  }
  float SumOfLanes() const { return SumOfLanes256(_mm256_add_ps(Low(), High())); }
  float MaxOfLanes() const { return MaxOfLanes256(_mm256_max_ps(Low(), High())); }
  float First() const { return _mm512_cvtss_f32(v_); }

  VecAvx512() = default;

 private:
  VecAvx512(__m512 v) : v_(v) {}  // NOLINT: implicit by design
  static __mmask16 FirstLanes(int n) { return n >= 16 ? 0xffff : __mmask16((1u << n) - 1); }
  __m256 Low() const { return _mm512_castps512_ps256(v_); }
  __m256 High() const { return _mm512_extractf32x8_ps(v_, 1); }
  __m512 v_;
};

#endif  // __AVX512F__
#else   // neither: the reference

class VecRef {
 public:
  static VecRef Set(float x) {
    return Each([&](int) { return x; });
  }
  static VecRef Load(const float* p) {
    return Each([&](int i) { return p[i]; });
  }
  static VecRef LoadFirst(const float* p, int n, float other) {
    return Each([&](int i) { return i < n ? p[i] : other; });
  }
  static VecRef LoadHalf(const uint16_t* p) {
    return Each([&](int i) { return HalfToFloat(p[i]); });
  }
  static VecRef LoadHalfFirst(const uint16_t* p, int n) {
    return Each([&](int i) { return i < n ? HalfToFloat(p[i]) : 0.0f; });
  }
  void Store(float* p) const { StoreFirst(p, 16); }
  void StoreFirst(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = lane_[i];
  }
  void StoreHalf(uint16_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = FloatToHalf(lane_[i]);
  }

  friend VecRef operator+(const VecRef& a, const VecRef& b) {
    return Each([&](int i) { return a.lane_[i] + b.lane_[i]; });
  }
  friend VecRef operator-(const VecRef& a, const VecRef& b) {
    return Each([&](int i) { return a.lane_[i] - b.lane_[i]; });
  }
  friend VecRef operator*(const VecRef& a, const VecRef& b) {
    return Each([&](int i) { return a.lane_[i] * b.lane_[i]; });
  }
  friend VecRef operator/(const VecRef& a, const VecRef& b) {
    return Each([&](int i) { return a.lane_[i] / b.lane_[i]; });
  }
  static VecRef Fma(const VecRef& a, const VecRef& b, const VecRef& c) {
    return Each([&](int i) { return std::fma(a.lane_[i], b.lane_[i], c.lane_[i]); });
  }
  static VecRef Max(const VecRef& a, const VecRef& b) {
    return Each([&](int i) { return a.lane_[i] > b.lane_[i] ? a.lane_[i] : b.lane_[i]; });
  }
  static VecRef IfLess(const VecRef& a, const VecRef& b, const VecRef& x, const VecRef& y) {
    return Each([&](int i) { return a.lane_[i] < b.lane_[i] ? x.lane_[i] : y.lane_[i]; });
  }
  static VecRef IfGreater(const VecRef& a, const VecRef& b, const VecRef& x, const VecRef& y) {
    return IfLess(b, a, x, y);
  }
  static VecRef KeepFirst(const VecRef& v, int n, const VecRef& other) {
    return Each([&](int i) { return i < n ? v.lane_[i] : other.lane_[i]; });
  }
  static uint32_t GreaterMask(const VecRef& a, const VecRef& b) {
    uint32_t mask = 0;
    for (int i = 0; i < 16; ++i) mask |= uint32_t(a.lane_[i] > b.lane_[i]) << i;
    return mask;
  }
  static uint32_t EqualMask(const VecRef& a, const VecRef& b) {
    uint32_t mask = 0;
    for (int i = 0; i < 16; ++i) mask |= uint32_t(a.lane_[i] == b.lane_[i]) << i;
    return mask;
  }
  static VecRef ShiftExponent(const VecRef& v, const VecRef& t) {
    return Each([&](int i) {
      return std::bit_cast<float>(std::bit_cast<uint32_t>(v.lane_[i]) +
                                  (std::bit_cast<uint32_t>(t.lane_[i]) << 23));
    });
  }
  float SumOfLanes() const {
    VecRef v = *this;
    for (int apart : {8, 4, 2, 1}) {
      for (int i = 0; i < apart; ++i) v.lane_[i] += v.lane_[i + apart];
    }
    return v.lane_[0];
  }
  float MaxOfLanes() const {
    VecRef v = *this;
    for (int apart : {8, 4, 2, 1}) {
      for (int i = 0; i < apart; ++i) {
        if (!(v.lane_[i] > v.lane_[i + apart])) v.lane_[i] = v.lane_[i + apart];
      }
    }
    return v.lane_[0];
  }
  float First() const { return lane_[0]; }

  VecRef() = default;

 private:
  template <class F>
  static VecRef Each(F lane) {
    VecRef v;
    for (int i = 0; i < 16; ++i) v.lane_[i] = lane(i);
    return v;
  }
  float lane_[16];
};

#endif

// e^x within 1e-7 relative. Exactly 0 below -87.33, where e^x would leave the normal range; infinity
// above 88.72; NaN for NaN. x = n ln 2 + r with |r| ≤ ln 2 / 2, e^r by a minimax polynomial of degree 6
// (relative error 3e-9 before rounding).
template <class V>
[[gnu::always_inline]] inline V Exp(V x) {
  const V kRound = V::Set(0x1.8p23f);  // adding it leaves n in the low mantissa bits
  const V t = V::Fma(x, V::Set(0x1.715476p0f), kRound);
  const V n = t - kRound;
  V r = V::Fma(n, V::Set(-0.693145751953125f), x);  // ln 2 in two pieces
  r = V::Fma(n, V::Set(-1.42860682e-6f), r);
  V p = V::Set(0.0013817399740219116f);
  p = V::Fma(p, r, V::Set(0.008368766866624355f));
  p = V::Fma(p, r, V::Set(0.041668348014354706f));
  p = V::Fma(p, r, V::Set(0.1666651964187622f));
  p = V::Fma(p, r, V::Set(0.4999999403953552f));
  p = V::Fma(p, r, V::Set(1.0f));
  p = V::Fma(p, r, V::Set(1.0f));
  const V y = V::IfLess(x, V::Set(-87.33f), V::Set(0.0f), V::ShiftExponent(p, t));
  return V::IfLess(x, V::Set(88.72f), y, x * V::Set(__builtin_inff()));  // also where x is NaN
}

}  // namespace dspark

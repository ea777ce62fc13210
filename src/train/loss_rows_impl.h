// The passes over a row, written once for every vector class of kernels/simd.h.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/simd.h"
#include "train/loss_rows.h"

namespace dspark {

template <class V, class T>
struct LossRowOps {
  static constexpr float kNothing = -1e30f;  // a logit whose e^x is 0

  static V Load(const float* p, int lanes) {
    return lanes == 16 ? V::Load(p) : V::LoadFirst(p, lanes, kNothing);
  }
  static V Load(const uint16_t* p, int lanes) {
    alignas(64) uint32_t bits[16];
    for (int i = 0; i < lanes; ++i) bits[i] = uint32_t(p[i]) << 16;
    return Load(reinterpret_cast<const float*>(bits), lanes);
  }
  static void Store(float* p, int lanes, V v) { v.StoreFirst(p, lanes); }
  // Rounds to nearest even; gradients are finite.
  static void Store(uint16_t* p, int lanes, V v) {
    alignas(64) uint32_t bits[16];
    v.Store(reinterpret_cast<float*>(bits));
    for (int i = 0; i < lanes; ++i) p[i] = uint16_t((bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16);
  }
  static float Value(float x) { return x; }
  static float Value(uint16_t x) { return __builtin_bit_cast(float, uint32_t(x) << 16); }

  // Calls body(i, lanes) for every vector of a row, the last one perhaps not full.
  template <class Body>
  [[gnu::always_inline]] static void ForEachVector(int64_t n, const Body& body) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) body(i, 16);
    if (i < n) body(i, int(n - i));
  }
  // p with the sign of p - q; 0 where they are equal.
  static V Signed(V p, V q) {
    const V zero = V::Set(0);
    return V::IfGreater(p, q, p, V::IfLess(p, q, zero - p, zero));
  }

  static float LogSumExp(const T* logits, int64_t n) {
    V most = V::Set(kNothing);
    ForEachVector(n, [&](int64_t i, int lanes) { most = V::Max(most, Load(logits + i, lanes)); });
    const float top = most.MaxOfLanes();
    V sum = V::Set(0);
    ForEachVector(n, [&](int64_t i, int lanes) { sum = sum + Exp(Load(logits + i, lanes) - V::Set(top)); });
    return top + std::log(sum.SumOfLanes());
  }

  // Of the distance's loss over l1.
  static float Slope(const LossRow<T>& row) {
    return row.log_acceptance ? 0.5f / std::fmax(1 - 0.5f * row.l1, kLeastAcceptance) : 1.0f;
  }

  static void Loss(int64_t n, LossRow<T>* row) {
    const float log_sum = LogSumExp(row->logits, n);
    const auto p_of = [&](int64_t i, int lanes) {
      return Exp(Load(row->logits + i, lanes) - V::Set(log_sum));
    };
    const auto q_of = [&](int64_t i, int lanes) {
      return Exp(Load(row->teacher + i, lanes) - V::Set(row->teacher_log_sum));
    };
    V above = V::Set(0), below = V::Set(0), signed_p = V::Set(0), mass = V::Set(0);
    ForEachVector(n, [&](int64_t i, int lanes) {
      V p = p_of(i, lanes), q = q_of(i, lanes);
      if (lanes < 16) q = V::KeepFirst(q, lanes, V::Set(0));  // the teacher's other ids follow
      above = above + V::Max(p - q, V::Set(0));
      below = below + V::Max(q - p, V::Set(0));
      signed_p = signed_p + Signed(p, q);
      mass = mass + q;
    });
    const float outside = row->teacher_has_more ? std::fmax(0.0f, 1 - mass.SumOfLanes()) : 0;
    row->l1 = above.SumOfLanes() + below.SumOfLanes() + outside;
    const bool labelled = row->label >= 0;
    const float ce_weight = labelled ? row->ce_weight : 0;
    if (labelled) row->ce = log_sum - Value(row->logits[row->label]);
    // d ce / d u = p - [label]; d l1 / d u = p (s - Σ p s), s = sign(p - q).
    const float l1_slope = row->l1_weight * Slope(*row);
    const V both = V::Set(ce_weight - l1_slope * signed_p.SumOfLanes());
    const V l1_weight = V::Set(l1_slope);
    const float label_p = labelled ? std::exp(Value(row->logits[row->label]) - log_sum) : 0;
    const float label_q = labelled ? std::exp(Value(row->teacher[row->label]) - row->teacher_log_sum) : 0;
    ForEachVector(n, [&](int64_t i, int lanes) {
      const V p = p_of(i, lanes);
      Store(row->logits + i, lanes, V::Fma(both, p, l1_weight * Signed(p, q_of(i, lanes))));
    });
    if (!labelled) return;
    const float s = label_p > label_q ? 1.0f : label_p < label_q ? -1.0f : 0.0f;
    alignas(64) float gradient[16] = {both.First() * label_p + l1_slope * s * label_p - ce_weight};
    Store(row->logits + row->label, 1, V::Load(gradient));
  }

  static void SoftLoss(int64_t n, LossRow<T>* row) {
    const float log_sum = LogSumExp(row->logits, n);
    const auto p_of = [&](int64_t i, int lanes) {
      return Exp(Load(row->logits + i, lanes) - V::Set(log_sum));
    };
    const auto q_of = [&](int64_t i, int lanes) {
      const V q = Exp(Load(row->teacher + i, lanes) - V::Set(row->teacher_log_sum));
      return lanes < 16 ? V::KeepFirst(q, lanes, V::Set(0)) : q;
    };
    V above = V::Set(0), below = V::Set(0), signed_p = V::Set(0), mass = V::Set(0), product = V::Set(0);
    ForEachVector(n, [&](int64_t i, int lanes) {
      const V p = p_of(i, lanes), q = q_of(i, lanes);
      above = above + V::Max(p - q, V::Set(0));
      below = below + V::Max(q - p, V::Set(0));
      signed_p = signed_p + Signed(p, q);
      mass = mass + q;
      product = V::Fma(q, Load(row->logits + i, lanes), product);
    });
    const float drafted = mass.SumOfLanes();
    const float outside = row->teacher_has_more ? std::fmax(0.0f, 1 - drafted) : 0;
    row->l1 = above.SumOfLanes() + below.SumOfLanes() + outside;
    const bool counts = row->label >= 0;
    if (counts) row->ce = log_sum - product.SumOfLanes() / drafted;
    // d ce / d u = p - q'; d l1 / d u as above.
    const float ce_weight = counts ? row->ce_weight : 0, l1_slope = row->l1_weight * Slope(*row);
    const V both = V::Set(ce_weight - l1_slope * signed_p.SumOfLanes());
    const V q_weight = V::Set(counts ? -ce_weight / drafted : 0), l1_weight = V::Set(l1_slope);
    ForEachVector(n, [&](int64_t i, int lanes) {
      const V p = p_of(i, lanes), q = q_of(i, lanes);
      Store(row->logits + i, lanes, V::Fma(both, p, V::Fma(q_weight, q, l1_weight * Signed(p, q))));
    });
  }

  static constexpr LossRowKernels<T> Kernels() { return {Loss, SoftLoss, LogSumExp}; }
};

}  // namespace dspark

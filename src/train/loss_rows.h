// The losses of one slot over the draft vocabulary and their gradient, in place (drafters.md §4): the inner
// loop of training.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/isa.h"

namespace dspark {

// One slot. Logits are fp32, or bf16 (then uint16_t).
template <class T>
struct LossRow {
  T* logits;                    // [n], replaced by the gradient of ce_weight * ce + l1_weight * distance
  const T* teacher;             // [n or more] the target's; those of the draft vocabulary come first
  float teacher_log_sum;        // log Σ exp over all of them
  bool teacher_has_more;        // than n
  int32_t label = -1;           // row of the draft vocabulary; -1: it has none, and the slot no cross-entropy
                                // (soft_loss asks for no more than the sign)
  float ce_weight, l1_weight;   // of this slot in the total loss
  bool log_acceptance = false;  // the distance is LogAcceptanceLoss(l1); otherwise l1
  float ce = 0;                 // result: -log p[label]
  float l1 = 0;                 // result: Σ |p - q| over the target's whole vocabulary
};

// LK_alpha (Samarin et al., "LK Losses", arXiv 2602.23881): minus the logarithm of the probability 1 - l1 / 2
// that the slot is accepted, so that slots with little of it count more than under l1. Its slope stays what
// it is at kLeastAcceptance where a slot is hopeless.
inline constexpr float kLeastAcceptance = 1e-3f;
inline float LogAcceptanceLoss(float l1) { return -std::log(std::fmax(1 - 0.5f * l1, kLeastAcceptance)); }

// The same bits with every instruction set.
template <class T>
struct LossRowKernels {
  void (*loss)(int64_t n, LossRow<T>* row);
  // The same with ce = -Σ q' log p: q' is the teacher's distribution over the draft vocabulary alone.
  void (*soft_loss)(int64_t n, LossRow<T>* row);
  float (*log_sum_exp)(const T* logits, int64_t n);
};
const LossRowKernels<float>& LossRowsFloat(Isa isa);
const LossRowKernels<uint16_t>& LossRowsBf16(Isa isa);

}  // namespace dspark

// The training pass of DSpark and DFlash (drafters.md §2, §3) and its loss (§4).
#pragma once

#include "data/train_sample.h"
#include "train/anchors.h"
#include "train/parameters.h"

namespace dspark {

// Shares of the total; DFlash: 1, 0, 0.
struct LossShares {
  double ce = 0.1, l1 = 0.9, confidence = 1.0;
  bool log_acceptance = false;  // LK_alpha in place of l1
  bool dpace = false;           // of blocks: cross-entropy and distance of a slot weigh what D-PACE gives it,
                                // and no longer what it weighs in the confidence's loss and the denominator
};

// Everything a pass reads but the weights.
struct BlockRun {
  DrafterConfig config;
  FrozenWeights frozen;
  torch::Tensor draft_head;  // Parameters::draft_head
  torch::ScalarType precision = torch::kFloat32;
  LossShares shares;
};

// Hidden states behind the final norm, [B * γ, d]. taps: [c or more, m * d] fp32, c the last anchor.
torch::Tensor BlockHidden(const BlockRun& run, const Weights& weights, const torch::Tensor& taps,
                          const BlockSlots& slots);

// What the heads make of hidden states.
struct BlockHeads {
  torch::Tensor bias;  // [B * γ, r]: times Markov W2 is added to the logits; undefined without the head
  torch::Tensor confidence;  // [B * γ] logits; undefined without the head
};
BlockHeads ApplyHeads(const BlockRun& run, const Weights& weights, const torch::Tensor& hidden,
                      const BlockSlots& slots);

// Per slot, of those that are valid, in order; fp32 without gradients.
struct SlotValues {
  std::vector<int64_t> slots;                        // indices into BlockSlots
  torch::Tensor ce, l1, confidence, confidence_bce;  // [valid]; the last two may be undefined
};

struct BlockLoss {
  torch::Tensor total;  // scalar with gradients; undefined when there is no valid slot
  SlotValues values;
};

// The loss of one sample as a part of its group's: every Σ w · loss divided by `denominator`, the group's
// Σ w + 1e-6. T rows of `sample`.
BlockLoss ComputeBlockLoss(const BlockRun& run, const Weights& weights, const TrainSample& sample,
                           const BlockSlots& slots, double denominator);

}  // namespace dspark

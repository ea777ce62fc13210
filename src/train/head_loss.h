// From the blocks' hidden states to the loss over the vocabulary (drafters.md §4): logits, softmaxes and
// their gradients some rows at a time, so that memory does not grow with slots times vocabulary.
#pragma once

#include <torch/types.h>

#include "core/isa.h"
#include "train/teacher.h"

namespace dspark {

// N slots that count.
struct HeadLossInputs {
  torch::Tensor draft_head;  // [Vd, d + r]: Parameters::draft_head
  SampleTeacher teacher;
  torch::Tensor teacher_rows;  // [N] int64: the row of `teacher` that speaks of a slot's token
  // [N] int64: rows of the teacher's head; those from Vd on have no cross-entropy. Undefined: it is against
  // the teacher's distribution over the draft vocabulary, of slots whose likeliest token is in it.
  torch::Tensor labels;
  torch::Tensor ce_weights;     // [N] fp32: of each slot in the loss
  torch::Tensor l1_weights;     // [N]
  bool log_acceptance = false;  // LK_alpha in place of l1 (loss_rows.h)
  // [N] the place of each slot in its block, 0 first and all of a block side by side: slots weigh what D-PACE
  // (dpace.h) gives them, times their weights above; with labels only. Empty: they weigh as above.
  std::vector<int64_t> places = {};
  int64_t chunk = 256;  // slots whose logits are in memory at once, and the rest of the last one's block
  Isa isa = DetectIsa();
  bool by_torch = false;  // with torch's operations on the CPU too, as elsewhere
};

struct HeadLoss {
  // Scalar: Σ (ce_weights * ce + l1_weights * l1), or * LogAcceptanceLoss(l1); of each slot times its weight
  // by D-PACE, where that is asked for. Such a weight has no gradient.
  torch::Tensor loss;
  torch::Tensor ce;  // [N] -log p(label), or -Σ q' log p; 0 without; no gradient
  torch::Tensor l1;  // [N] Σ |p - q| over V; no gradient
};

// hidden [N, d]; bias [N, r] and markov_w2 [Vd, r], or undefined without a Markov head. The values of
// markov_w2 are those in draft_head. Gradients: of hidden, bias, markov_w2.
HeadLoss ComputeHeadLoss(const torch::Tensor& hidden, const torch::Tensor& bias,
                         const torch::Tensor& markov_w2, const HeadLossInputs& inputs);

}  // namespace dspark

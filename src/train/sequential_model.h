// The training pass of Eagle3 and MTP (drafters.md §6, §11) and its loss: behind every token of a sample
// several drafts in a row, each from the state that the one before left, as they will be made.
#pragma once

#include <span>

#include "data/train_sample.h"
#include "train/block_model.h"

namespace dspark {

// Row i reads the target's state of token i and token i + 1; its step k (0 … S - 1) drafts token i + 2 + k.
struct StepRows {
  int steps = 0;               // S
  std::vector<int64_t> rows;   // [n], ascending: those with a draft that counts
  std::vector<uint8_t> valid;  // [n, S]
  std::vector<float> weights;  // [n, S] in the loss, 0 where not valid
  double weight = 0;           // of the sample in the denominator

  int64_t at(size_t row, int step) const { return int64_t(row) * steps + step; }
};

// Eagle3 as DeepSpec has it (§6.3): a draft counts where token i + k is supervised and not the last, and
// weighs decay^k over the conversation's tokens; every sample weighs 1. MTP: where token i + 2 + k is
// supervised, decay^k; a sample weighs as much as its drafts. loss_mask: [T]; left_out: TrainSample's.
StepRows ChooseRows(DrafterKind kind, std::span<const uint8_t> loss_mask, int steps, double decay,
                    int left_out = 0);

// Everything a pass reads but the weights. config.block_size: S.
struct SequentialRun {
  DrafterConfig config;  // of kind kEagle3 or kMtp
  FrozenWeights frozen;
  torch::Tensor draft_head;  // Parameters::draft_head
  torch::ScalarType precision = torch::kFloat32;
  // Cross-entropy: Eagle3's against the teacher's distribution over the draft vocabulary, MTP's against the
  // text; L1 against the teacher's whole distribution. No confidence.
  LossShares shares;
};

// The states y of every step, S times [n, d].
std::vector<torch::Tensor> SequentialStates(const SequentialRun& run, const Weights& weights,
                                            const TrainSample& sample, const StepRows& rows);
// Logits of some states y [n, d] are these times draft_head's transpose.
torch::Tensor HeadInput(const SequentialRun& run, const Weights& weights, const torch::Tensor& states);

struct SequentialLoss {
  torch::Tensor total;      // scalar with gradients; undefined when no draft counts
  std::vector<int64_t> at;  // [valid] indices into StepRows::valid
  torch::Tensor ce, l1;     // [valid] fp32 without gradients
};

// The loss of one sample as a part of its group's: every weight divided by `denominator`.
SequentialLoss ComputeSequentialLoss(const SequentialRun& run, const Weights& weights,
                                     const TrainSample& sample, const StepRows& rows, double denominator);

}  // namespace dspark

// AdamW on fp32 masters, after clipping by the global norm (drafters.md §13; no weight decay there).
#pragma once

#include "train/parameters.h"

namespace dspark {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, clip = 1.0;
};

class AdamW {
 public:
  AdamW(Parameters* parameters, const AdamOptions& options);

  // gradients: fp32, in the order of the parameters; scaled in place. Returns their norm before clipping.
  double Step(std::vector<torch::Tensor>& gradients, double learning_rate);

  // For checkpoints: moments in the order of the parameters, and the steps made.
  std::vector<torch::Tensor> first, second;
  int64_t steps = 0;

 private:
  Parameters& parameters_;
  AdamOptions options_;
};

}  // namespace dspark

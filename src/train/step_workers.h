// The samples of a step shared out among threads.
#pragma once

#include <vector>

#include "train/trainable.h"

namespace dspark {

using TrainItems = std::vector<std::unique_ptr<TrainItem>>;

// Forward and backward passes on several threads, each with gradients of its own.
class StepWorkers {
 public:
  // `parameters` outlive this; items keep metrics of `drafts` drafts.
  StepWorkers(const Parameters& parameters, int drafts, int threads);

  // Items of one group, whose losses are divided by `denominator`, the Σ w of the whole group (of which other
  // processes may have their part) + 1e-6, and by `groups`. Returns their sum; adds to `metrics`.
  double RunGroup(const TrainItems& items, double denominator, int groups, BlockMetrics* metrics);
  // The gradients of all groups since the last call, in the order of the parameters.
  std::vector<torch::Tensor> TakeGradients();

 private:
  struct Worker {
    Weights weights;
    std::vector<size_t> items;
    double loss = 0;
    BlockMetrics metrics{0};
  };
  void Assign(const TrainItems& items);
  void RunWorker(const TrainItems& items, double denominator, double share, Worker* worker);

  const Parameters& parameters_;
  const int drafts_;
  std::vector<Worker> workers_;
};

}  // namespace dspark

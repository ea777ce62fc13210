// The samples of a step shared out among threads.
#pragma once

#include <vector>

#include "train/block_metrics.h"
#include "train/block_model.h"

namespace dspark {

struct TrainItem {
  const TrainSample* sample;
  BlockSlots slots;
};

// Forward and backward passes on several threads, each with gradients of its own.
class StepWorkers {
 public:
  // `run` and `parameters` outlive this.
  StepWorkers(const BlockRun& run, const Parameters& parameters, int threads);

  // Items of one group, whose losses are divided by `denominator`, the Σ w of the whole group (of which other
  // processes may have their part) + 1e-6, and by `groups`. Returns their sum; adds to `metrics`.
  double RunGroup(const std::vector<TrainItem>& items, double denominator, int groups, BlockMetrics* metrics);
  // The gradients of all groups since the last call, in the order of the parameters.
  std::vector<torch::Tensor> TakeGradients();

 private:
  struct Worker {
    Weights weights;
    std::vector<size_t> items;
    double loss = 0;
    BlockMetrics metrics{0};
  };
  void Assign(const std::vector<TrainItem>& items);
  void RunWorker(const std::vector<TrainItem>& items, double denominator, double share, Worker* worker);

  const BlockRun& run_;
  const Parameters& parameters_;
  std::vector<Worker> workers_;
};

}  // namespace dspark

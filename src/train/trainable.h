// What the trainer knows of a drafter in training: a sample becomes an item, an item has a loss.
#pragma once

#include <memory>

#include "data/train_sample.h"
#include "train/block_metrics.h"
#include "train/parameters.h"

namespace dspark {

// What a step trains on of one sample. Reads the sample, which outlives it.
class TrainItem {
 public:
  virtual ~TrainItem() = default;
  // Blocks or rows; 0: the sample has none.
  virtual int64_t anchors() const = 0;
  // Its part of the denominator of its group's loss.
  virtual double weight() const = 0;
  // A scalar with gradients of `weights`, a part of the group's loss over `denominator`; undefined where
  // nothing counts. What is logged is added to `metrics`. Several threads ask different items at once.
  virtual torch::Tensor Loss(const Weights& weights, double denominator, BlockMetrics* metrics) const = 0;
};

class TrainableDrafter {
 public:
  virtual ~TrainableDrafter() = default;
  // Drafts that a metric is kept of: slots of a block, steps of a row.
  virtual int drafts() const = 0;
  // Sample `index` of the source in `epoch`; the same whenever it is asked.
  virtual std::unique_ptr<TrainItem> MakeItem(const TrainSample& sample, int64_t epoch,
                                              int64_t index) const = 0;
};

}  // namespace dspark

// DSpark and DFlash as the trainer sees them.
#pragma once

#include "train/block_model.h"
#include "train/trainable.h"

namespace dspark {

// Which blocks of a sample, and the weights of their slots.
struct BlockChoice {
  int anchors = 512;  // of a sample at most
  double decay = 4;   // slot j weighs exp(-j / decay)
  uint64_t seed = 42;
};

std::unique_ptr<TrainableDrafter> MakeBlockTrainable(BlockRun run, const BlockChoice& choice);

}  // namespace dspark

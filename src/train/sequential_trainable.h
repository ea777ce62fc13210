// Eagle3 and MTP as the trainer sees them.
#pragma once

#include "train/sequential_model.h"
#include "train/trainable.h"

namespace dspark {

// Step k weighs decay^k.
std::unique_ptr<TrainableDrafter> MakeSequentialTrainable(SequentialRun run, double decay);

// Adds what a sample's loss came to: every draft that counts, and a τ of every row whose first one does.
void AddMetrics(const StepRows& rows, const SequentialLoss& loss, BlockMetrics* metrics);

}  // namespace dspark

// Layers of a drafter that start as layers of its target.
#pragma once

#include <vector>

#include "load/model_files.h"
#include "train/parameters.h"

namespace dspark {

// Copies the target's layers `from[i]` to the drafter's layer i: every tensor both have. The norms on q and
// k, which Llama's layers lack, stay 1. Nothing for an empty list. Error: a tensor of another shape.
Status InitLayers(const std::vector<int>& from, const ModelFiles& target, Parameters* parameters);

}  // namespace dspark

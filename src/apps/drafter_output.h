// Tensors on their way from one file into another: planned first, then written row by row.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/function_ref.h"
#include "load/drafter_files.h"
#include "load/mapped_weights.h"
#include "load/tensor_file_header.h"

namespace dspark {

struct OutputTensor {
  TensorHeader header;
  const TensorView* source = nullptr;
  // > 0: rows of heads of this size change from the order of rope's pairs (i, i + hd/2) to (2i, 2i + 1).
  int interleave_heads_of = 0;
};

// Headers and sources of the tensors in `shapes`, in its order. What the drafter does not have comes from the
// target (`target` may be null; a tied target's head is its embedding). Error: neither has it, or a quantised
// tensor would be quantised once more.
Result<std::vector<OutputTensor>> PlanTensors(const DrafterFiles& drafter, const TensorSource* target,
                                              const TensorShapes& shapes,
                                              FunctionRef<TensorType(const std::vector<int64_t>&)> type_of);

// The target's embedding or head (token_embd.weight, output.weight); null without a target.
const TensorView* OfTarget(const TensorSource* target, std::string_view name);

// True when both hold the same numbers in the same shape, whatever their types.
bool SameValues(const TensorView& a, const TensorView& b);

std::vector<TensorHeader> HeadersOf(const std::vector<OutputTensor>& plan);

// The tensor's bytes, in its new type and order; never a tensor in memory whole.
void WriteTensor(const OutputTensor& tensor, AtomicFile* file);

}  // namespace dspark

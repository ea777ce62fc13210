// The tensors that all drafters have (load/drafter_files.h), packed for the kernels. A drafter adds slots for
// its own.
#pragma once

#include <vector>

#include "core/result.h"
#include "draft/registry.h"
#include "model/weights.h"

namespace dspark {

struct DraftWeights {
  Buffer<uint8_t> storage;  // of all matrices, those of the drafter's own slots too
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;  // [d]
  PackedMatrix fc;                 // [d, taps * target width]; empty without taps
  std::vector<float> fc_bias;      // [d], or empty
  PackedMatrix embedding;          // [V, d]; empty: the target's
  PackedMatrix head;               // [Vd, d]; empty: the target's
};

// The head that drafts: the drafter's own or the target's, as DrafterLimits::own_int4_head and a reduced
// vocabulary want it. `copy` holds it where it is neither.
const PackedMatrix& DraftHead(const DraftWeights& weights, const DrafterConfig& config, const Target& target,
                              ThreadPool& pool, const DrafterLimits& limits, PackedMatrix* copy);

// Fills `weights` and the slots in `own`, whose matrices are read after fc and before the head. q, k and v of
// a layer read `qkv_columns` columns. Formats and errors: PackSlots (model/weight_packer.h).
Status PackDraftWeights(const DrafterFiles& files, ThreadPool& pool, const DrafterLimits& limits,
                        int qkv_columns, const WeightSlots& own, DraftWeights* weights);

}  // namespace dspark

// From a drafter's files to a drafter that runs. Adding a drafter: one file with its class, one line in
// registry.cc (docs/add_a_drafter.md).
#pragma once

#include <memory>
#include <optional>

#include "core/result.h"
#include "core/thread_pool.h"
#include "draft/drafter.h"
#include "load/drafter_files.h"
#include "model/target.h"

namespace dspark {

struct DrafterLimits {
  int max_sequences = 1;   // drafting at once
  int max_context = 8192;  // positions of one sequence: the target's
  int block_tokens = 32;   // positions of a KV block: the target's
  int kv_blocks = 0;       // of the target's pool; 0: max_sequences whole contexts
  KvType kv_type = KvType::kF16;
  // What the drafter's matrices are packed as; none: as in the file. A target's embedding or head that the
  // drafter shares keeps the target's packing, unless `own_int4_head` makes a 4-bit copy for drafting.
  std::optional<WeightFormat> weights = {};
  bool own_int4_head = false;
  // Candidates of a sampled draft: the likeliest of each slot, to which q is confined. 0: the whole
  // vocabulary.
  int candidates = 64;
};

// Blocks of a drafter's own pool: the rows of the target's (a prefix cache holds them in pairs), and for each
// sequence `ahead` positions that only the drafter has.
inline int DrafterBlocks(const DrafterLimits& limits, const KvLayout& layout, int ahead) {
  const int rows =
      limits.kv_blocks ? limits.kv_blocks : limits.max_sequences * layout.BlocksFor(limits.max_context);
  return rows + limits.max_sequences * (1 + layout.BlocksFor(ahead));
}

// `target` gives the embedding and head that the drafter's file leaves out (Target::embedding, Target::head)
// and outlives the drafter, as does the pool. Error: CheckDrafterFits's, missing or misshapen tensors.
Result<std::unique_ptr<Drafter>> LoadDrafter(const DrafterFiles& files, const Target& target,
                                             ThreadPool& pool, const DrafterLimits& limits);

}  // namespace dspark

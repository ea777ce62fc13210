// What running a model takes, before anything of it is allocated, and what the machine has.
#pragma once

#include <string>

#include "api/draft_source.h"
#include "model/target.h"

namespace dspark {

// Where the model allows more and --ctx is not given.
inline constexpr int kDefaultContext = 8192;

// In bytes. Doubles, because a file may claim sizes whose product no integer holds.
struct MemoryPlan {
  int context = 0;          // positions of one sequence
  double weights = 0;       // as packed
  double kv = 0;            // of the pool; backed as it is used
  double kv_per_token = 0;  // of one sequence
  double workspace = 0;     // activations, logits, attention, rope
  double drafter = 0;       // its weights and K/V

  double Total() const { return weights + kv + workspace + drafter; }
};

// What the KV pool is made for.
struct KvNeed {
  int sequences = 1;
  int tokens = 0;  // of the pool; 0: `context` for every sequence

  KvNeed(int n, int pool_tokens = 0) : sequences(n), tokens(pool_tokens) {}  // NOLINT: implicit by design
  int64_t Blocks(const KvLayout& layout, int context) const {
    return tokens > 0 ? layout.BlocksFor(tokens) : int64_t{layout.BlocksFor(context)} * sequences;
  }
};

// The context that `asked` (0: not given) means for a model. Error: more than it was made for.
Result<int> ChooseContext(const ModelConfig& config, int asked);

// Error: as PlanTarget.
Result<MemoryPlan> PlanMemory(const ModelFiles& files, const TargetLimits& limits, const KvNeed& need,
                              int threads, const DraftSource& source = {});

// Bytes that this process may come to use: the machine's memory or that of the control group (v1 or v2) it
// runs in, whichever is less. Infinity when neither is known. `root` stands before /proc and /sys.
double MachineMemory(const std::string& root = "");

// Error: the plan is for more than `machine` bytes or than the address space left; with the longest context
// (a power of two) that would do.
Status CheckMemory(const ModelFiles& files, const TargetLimits& limits, const KvNeed& need, int threads,
                   const DraftSource& source, double machine);

}  // namespace dspark

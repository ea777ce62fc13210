// A target model: rows in, logits and taps out.
//
// A batch is a list of segments, each some consecutive tokens of one sequence: a prefill chunk, or the rows
// of a verify (the newest committed token and its drafts), or one row of plain decoding. One pass reads the
// weights once for all rows. Row r's results are the same bits whatever else is in the batch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/result.h"
#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "kv/block_pool.h"
#include "load/model_files.h"

namespace dspark {

struct Segment {
  std::span<const int32_t> tokens;
  int position = 0;       // of tokens[0]; K/V of positions before it are in `kv`
  KvTable* kv = nullptr;  // reserved for at least position + tokens.size()
  int logits_from = 0;    // rows tokens[logits_from …] give logits; tokens.size() asks for none
};

// Valid until the next Forward of the same target.
struct ForwardOutput {
  float* logits = nullptr;  // [logit rows, V], in batch order; the caller may work in place
  size_t logits_stride = 0;
  int logit_rows = 0;
  // [rows, tap_layers.size() * d]: residual stream after each tapped layer, side by side
  const float* taps = nullptr;
  size_t taps_stride = 0;
};

struct TargetLimits {
  int max_rows = 512;       // rows of one Forward
  int max_logit_rows = 64;  // rows with logits of one Forward
  int max_context = 8192;   // positions of one sequence
  int max_taps = 0;         // layers tapped in one Forward
  int block_tokens = 32;    // positions of a KV block
  KvType kv_type = KvType::kF16;
  // What matrices are packed as (PackWeights); none: as in the file.
  std::optional<WeightFormat> weights = {};
};

struct TargetMemory {
  size_t weight_bytes = 0;     // packed
  size_t workspace_bytes = 0;  // activations, logits, attention, rope
};

// What a target will take, from sizes alone.
struct TargetPlan {
  TargetMemory memory;  // Target::memory()
  KvLayout kv_layout;   // Target::kv_layout()
};

class Target {
 public:
  virtual ~Target() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const TargetLimits& limits() const = 0;
  virtual KvLayout kv_layout() const = 0;
  virtual TargetMemory memory() const = 0;
  // For drafters that share them. embedding: [V, d]; head: [V, d], the embedding where they are tied.
  virtual const PackedMatrix& embedding() const = 0;
  virtual const PackedMatrix& head() const = 0;
  virtual Isa isa() const = 0;  // of its thread pool

  // Runs every segment. Segments' rows add up to at most limits().max_rows. `tap_layers` are strictly
  // increasing layer indices 0 … L-1 (drafters.md §1.1), empty for none; -1 is the embedding, L the final
  // norm's output (what MTP reads).
  virtual ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) = 0;
};

// What LoadTarget's result will take with a pool of `threads`; allocates nothing. `limits` need not fit into
// any machine. Error: as LoadTarget.
Result<TargetPlan> PlanTarget(const ModelFiles& files, const TargetLimits& limits, int threads);

// Packs the weights and plans the workspace. The pool must outlive the target. Error: missing or misshapen
// tensors, or weights that are no numbers.
Result<std::unique_ptr<Target>> LoadTarget(const ModelFiles& files, ThreadPool& pool,
                                           const TargetLimits& limits);

}  // namespace dspark

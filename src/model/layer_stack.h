// The layers of a dense transformer over paged K/V, as every worker of a pool runs them: what the targets and
// the drafters are made of. One pass: the caller lays out rows, fills X, and calls the blocks layer by layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/rope.h"
#include "load/model_config.h"
#include "model/weights.h"

namespace dspark {

struct LayerStackLimits {
  int max_rows = 128;     // of one pass
  int max_context = 0;    // positions of one sequence
  int block_tokens = 32;  // positions of a KV block
  KvType kv_type = KvType::kF16;
};

class LayerStack {
 public:
  // Uses the sizes, norms and rope of `config`; `weights` (its layers' formats count here, nothing else) are
  // given again with every call.
  LayerStack(const ModelConfig& config, std::span<const LayerWeights> weights, int workers,
             const LayerStackLimits& limits);

  KvLayout kv_layout() const { return shape_.layout; }
  size_t WorkspaceBytes() const;
  // The same of a stack of these arguments, before there is one.
  static KvLayout LayoutFor(const ModelConfig& config, const LayerStackLimits& limits);
  static size_t WorkspaceBytesFor(const ModelConfig& config, int workers, const LayerStackLimits& limits);

  // Lays out the rows of the next pass, R in all; one thread calls it between passes. Segments follow each
  // other in row order from row 0.
  void Begin(std::span<const AttentionSegment> segments);
  int rows() const { return int(positions_.size()); }
  int position(int row) const { return positions_[size_t(row)]; }

  // Row r of the residual stream [d]. Complete for all workers after each block.
  float* X(int row) { return x_.data() + size_t(row) * x_stride_; }

  // The phases below are run by every worker. Each ends with a barrier, and expects one before it.

  // X += Wo · Attn(RMS(X; attn_norm)); K and V of the rows are stored.
  void AttentionBlock(Worker& worker, const LayerWeights& weights, int layer);
  // X += Wo · Attn(input), for a layer whose q, k and v read something else than the normed X (Eagle3).
  // `input` is quantised where the weights are.
  void Attend(Worker& worker, const LayerWeights& weights, int layer, const Activations& input);
  // X += Wd · (silu(Wg · n) ⊙ Wu · n), n = RMS(X; ffn_norm).
  void FfnBlock(Worker& worker, const LayerWeights& weights);
  // K and V of rows that are read but ask nothing (a drafter's context features, drafters.md §2.3): stored at
  // the rows' positions. `input` [R, d] is quantised where wk and wv are.
  void StoreContext(Worker& worker, const LayerWeights& weights, int layer, const Activations& input);

  // True when the matrices that read normed rows are quantised: then such rows need their int8 side.
  bool normed_int8() const { return normed_int8_; }

 private:
  void Norm(const Worker& worker, const std::vector<float>& weight);
  void NormAndRotate(Isa isa, float* x, int heads, const std::vector<float>& norm, int position) const;

  const int d_model_, d_ffn_, heads_, kv_heads_, head_dim_;
  const float rms_eps_;
  const bool rope_interleaved_;
  const AttentionShape shape_;
  const RopeTable rope_;

  std::vector<int> positions_;  // [R]
  std::vector<AttentionSegment> segments_;

  size_t x_stride_ = 0, qkv_stride_ = 0;                                    // floats from row to row
  Buffer<float> x_;                                                         // [R, d] residual stream
  Buffer<float> q_, k_, v_;                                                 // [R, qkv_stride_]
  Activations normed_;                                                      // [R, d]
  Activations attended_;                                                    // [R, H * hd]
  Activations hidden_;                                                      // [R, d_ffn]: silu(gate) * up
  Buffer<float> up_;                                                        // [R, d_ffn]
  bool normed_int8_ = false, attended_int8_ = false, hidden_int8_ = false;  // read as int8
  AttentionWorkspace attention_;
};

// Floats from row to row of a buffer of n columns: never a power of two, so that rows do not share cache
// sets.
size_t PadStride(size_t n);

}  // namespace dspark

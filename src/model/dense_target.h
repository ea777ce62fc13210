// The dense decoder-only transformer (Llama, SmolLM2, Qwen3): targets.md §2–3.
#pragma once

#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/rope.h"
#include "model/target.h"
#include "model/weights.h"

namespace dspark {

class DenseTarget : public Target {
 public:
  DenseTarget(const ModelConfig& config, ModelWeights weights, ThreadPool& pool, const TargetLimits& limits);

  // memory().workspace_bytes of a target of these arguments, before there is one.
  static size_t WorkspaceBytesFor(const ModelConfig& config, const TargetLimits& limits, int threads);

  const ModelConfig& config() const override { return config_; }
  const TargetLimits& limits() const override { return limits_; }
  KvLayout kv_layout() const override { return shape_.layout; }
  TargetMemory memory() const override { return {weights_.Bytes(), WorkspaceBytes()}; }
  Isa isa() const override { return pool_.isa(); }
  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override;

 private:
  size_t WorkspaceBytes() const;
  void PlanSlice(std::span<const Segment> segments);

  // The phases of a pass over a slice, run by every worker. R = its rows.
  void Run(Worker& worker, std::span<const int> tap_layers);
  void Embed(const Worker& worker);
  void AttentionBlock(Worker& worker, int layer);
  void FfnBlock(Worker& worker, int layer);
  void Head(Worker& worker);
  void Norm(const Worker& worker, const std::vector<float>& weight);
  void RotateAndStore(Worker& worker, int layer);
  void NormAndRotate(float* x, int heads, const std::vector<float>& norm, int position) const;
  void Tap(const Worker& worker, int slot);

  const ModelConfig config_;
  const ModelWeights weights_;
  ThreadPool& pool_;
  const TargetLimits limits_;
  const AttentionShape shape_;
  const RopeTable rope_;

  // The present slice of the batch, as PlanSlice lays it out: R rows.
  int first_row_ = 0, logits_done_ = 0;      // rows, and rows with logits, of the slices before
  std::vector<int32_t> tokens_, positions_;  // [R]
  std::vector<AttentionSegment> attention_segments_;
  std::vector<int> logit_rows_;  // rows that give logits, in order

  // Workspace.
  size_t x_stride_ = 0, qkv_stride_ = 0;  // floats from row to row
  Buffer<float> x_;                       // [R, d] residual stream
  Buffer<float> q_, k_, v_;               // [R, qkv_stride_]
  Activations normed_;                    // [R, d]
  Activations attended_;                  // [R, H * hd]
  Activations hidden_;                    // [R, d_ffn]: silu(gate) * up
  Activations head_input_;                // [logit rows, d]
  bool normed_int8_ = false, attended_int8_ = false, hidden_int8_ = false,
       head_int8_ = false;  // read as int8
  Buffer<float> up_;        // [R, d_ffn]
  Buffer<float> logits_;    // [logit rows, V]
  Buffer<float> taps_;      // [R, taps * d]
  size_t logits_stride_ = 0, taps_stride_ = 0;
  AttentionWorkspace attention_;
};

}  // namespace dspark

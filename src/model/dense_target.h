// The dense decoder-only transformer (Llama, SmolLM2, Qwen3): targets.md §2–3.
#pragma once

#include <vector>

#include "model/layer_stack.h"
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
  KvLayout kv_layout() const override { return stack_.kv_layout(); }
  TargetMemory memory() const override { return {weights_.Bytes(), WorkspaceBytes()}; }
  const PackedMatrix& embedding() const override { return weights_.embedding; }
  const PackedMatrix& head() const override { return weights_.head(); }
  Isa isa() const override { return pool_.isa(); }
  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override;

 private:
  size_t WorkspaceBytes() const;
  void PlanSlice(std::span<const Segment> segments);

  // The phases of a pass over a slice, run by every worker. R = its rows.
  void Run(Worker& worker, std::span<const int> tap_layers);
  void Embed(const Worker& worker);
  void Head(Worker& worker);
  void Tap(const Worker& worker, int slot);
  void TapFinal(const Worker& worker, int slot);

  const ModelConfig config_;
  const ModelWeights weights_;
  ThreadPool& pool_;
  const TargetLimits limits_;

  // The present slice of the batch, as PlanSlice lays it out: R rows.
  int first_row_ = 0, logits_done_ = 0;  // rows, and rows with logits, of the slices before
  std::vector<int32_t> tokens_;          // [R]
  std::vector<AttentionSegment> attention_segments_;
  std::vector<int> logit_rows_;  // rows that give logits, in order

  LayerStack stack_;
  Activations head_input_;  // [logit rows, d]
  bool head_int8_ = false;  // read as int8
  Buffer<float> logits_;    // [logit rows, V]
  Buffer<float> taps_;      // [R, taps * d]
  size_t logits_stride_ = 0, taps_stride_ = 0;
};

}  // namespace dspark

// Eagle3 (drafters.md §6; Li et al. 2025, "EAGLE-3"): DeepSpec's form (five taps, norms on the heads of q and
// k, the whole vocabulary) and the original's (three taps, a reduced vocabulary).
//
//   g = fc · taps (observed) or the y before it (drafted)
//   u = [RMS(Emb(t); attn_norm) ; RMS(g; attn_norm_2)]
//   y = g + Attn(u); y += Ffn(RMS(y; ffn_norm)); logits = head · RMS(y; output_norm)
//
// Rows are causal throughout. DeepSpec lets rows that are observed together see each other, which with one
// layer changes nothing that is read again (§6.4).
#pragma once

#include <memory>
#include <vector>

#include "draft/sequential_drafter.h"

namespace dspark {

class Eagle3 : public SequentialDrafter {
 public:
  // `files` are of kind kEagle3 and fit the target (CheckDrafterFits); target and pool outlive the drafter.
  // Error: missing or misshapen tensors.
  static Result<std::unique_ptr<Drafter>> Load(const DrafterFiles& files, const Target& target,
                                               ThreadPool& pool, const DrafterLimits& limits);

  std::span<const int> tap_layers() const override { return config_.taps; }

 private:
  friend class Eagle3Peer;  // tests look at fc · taps

  Eagle3(const DrafterConfig& config, DraftWeights weights, std::vector<float> state_norm,
         const Target& target, ThreadPool& pool, const DrafterLimits& limits);

  void RunLayer(Worker& worker, bool observed) override;
  void Fuse(Worker& worker);

  const std::vector<float> state_norm_;  // [d] attn_norm_2
  const WeightFormat qkv_format_;
};

}  // namespace dspark

// Multi-token prediction as DeepSeek-V3 has it (drafters.md §11), with one dense layer:
//
//   z = eh_proj · [RMS(Emb(t); enorm) ; RMS(h; hnorm)], h the target's final norm (observed) or the y before
//   y = Layer(z); logits = head · RMS(y; output_norm)
//
// With one draft a round it is MTP-1; with k, the layer's own y stands in for the target's h.
#pragma once

#include <memory>
#include <vector>

#include "draft/sequential_drafter.h"

namespace dspark {

class Mtp : public SequentialDrafter {
 public:
  // `files` are of kind kMtp and fit the target (CheckDrafterFits); target and pool outlive the drafter.
  // Error: missing or misshapen tensors.
  static Result<std::unique_ptr<Drafter>> Load(const DrafterFiles& files, const Target& target,
                                               ThreadPool& pool, const DrafterLimits& limits);

  std::span<const int> tap_layers() const override { return {&final_norm_, 1}; }

 private:
  struct OwnWeights {
    PackedMatrix projection;                    // [d, 2 d] eh_proj
    std::vector<float> token_norm, state_norm;  // [d] enorm, hnorm
  };

  Mtp(const DrafterConfig& config, DraftWeights weights, OwnWeights own, const Target& target,
      ThreadPool& pool, const DrafterLimits& limits);

  void RunLayer(Worker& worker, bool observed) override;

  const OwnWeights own_;
  const int final_norm_;  // the target's tap L
};

}  // namespace dspark

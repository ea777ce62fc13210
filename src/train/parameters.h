// The tensors of a drafter in training, under DeepSpec's names (load/drafter_tensors.h).
//
// Every trained tensor is an fp32 master. Matrix products run in the precision of the run: bf16 copies of the
// masters are made once per optimizer step. Embedding and head are the target's, frozen, kept once in that
// precision.
#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/drafter_files.h"

namespace dspark {

// What one thread computes with: gradients of `leaf` are its own, values are shared.
struct Weight {
  torch::Tensor leaf;  // fp32, requires grad, storage of the master
  torch::Tensor low;   // of a matrix: the copy that products read; the leaf itself in fp32
};
using Weights = std::map<std::string, Weight, std::less<>>;

// What does not train.
struct FrozenWeights {
  torch::Tensor embedding;  // [V, d] fp32 or bf16
  // [V, d]: the target's head. Of a reduced vocabulary the Vd rows that draft come first, in the order of
  // draft_to_target, then all others.
  torch::Tensor head;
  torch::Tensor head_row;  // [V] int32: the row of `head` an id has
};

struct Parameter {
  std::string name;  // DeepSpec's
  torch::Tensor master, low;
};

class Parameters {
 public:
  // Initialised as the reference does (drafters.md §13): matrices N(0, 0.02), norms 1, biases 0. `head`: the
  // frozen head of Vd rows at least, in the precision of the products.
  Parameters(const DrafterConfig& config, torch::ScalarType precision, uint64_t seed,
             const torch::Tensor& head);

  // The values of `source` under llama.cpp's names. Error: a tensor is missing or has another shape.
  Status Load(const TensorSource& source);
  // After the masters changed.
  void RefreshLow();
  // Leaves of their own over the same values.
  Weights MakeWeights() const;

  std::vector<Parameter>& all() { return all_; }
  const std::vector<Parameter>& all() const { return all_; }
  // [Vd, d + r] in the precision of the products: head and Markov W2 side by side, so that one product gives
  // corrected logits; [Vd, d] without a Markov head.
  const torch::Tensor& draft_head() const { return draft_head_; }

 private:
  std::vector<Parameter> all_;
  torch::Tensor draft_head_;
};

// A whole tensor as fp32.
torch::Tensor TensorFrom(const TensorView& view);

// The target's embedding and head in `precision`. Error: a tensor is missing.
Result<FrozenWeights> LoadFrozen(const TensorSource& target, const DrafterConfig& config,
                                 torch::ScalarType precision);

}  // namespace dspark

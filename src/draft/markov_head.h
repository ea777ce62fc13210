// The sequential heads of a block drafter (drafters.md §2.6): the logits of slot k are U_k + B_k, where U_k
// comes from the block's one pass and B_k[v] = W2[v] · g_k depends on the token drafted before it:
//   vanilla  g = e, where e = W1[x_{k-1}]
//   gated    g = σ(J [h ; e] + b) ⊙ e
//   rnn      z = J [s ; e ; h] + b in three parts; g = tanh(z_2), s' = σ(z_0) ⊙ s + (1 - σ(z_0)) ⊙ tanh(z_1)
// h is the slot's hidden state [d], s a state [r] that starts at 0 with every block.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/row_table.h"
#include "load/drafter_files.h"
#include "model/weight_packer.h"

namespace dspark {

struct MarkovWeights {
  MarkovHead kind = MarkovHead::kNone;
  RowTable w1;                    // [V, r]
  RowTable w2;                    // [Vd, r]
  PackedMatrix joint;             // J: gated [r, d + r], rnn [3r, 2r + d]; empty for vanilla
  std::vector<float> joint_bias;  // b [rows of J]
  std::vector<float> norms;       // [Vd] ‖W2[v]‖, a little above
  float largest_norm = 0;

  int rank() const { return w1.k(); }
};

// Names the tensors of the head that `config` has; nothing for kNone.
void AddMarkovSlots(const DrafterConfig& config, MarkovWeights* weights, WeightSlots* slots);
// Fills `norms` and `largest_norm` when w2 is there.
void MeasureNorms(ThreadPool& pool, MarkovWeights* weights);

// The lowest id with the largest u[v] + W2[v] · g of the whole vocabulary. `top` are the likeliest of u, best
// first (TopK). Most of the vocabulary is ruled out by |W2[v] · g| ≤ ‖W2[v]‖ ‖g‖, not computed. u: [Vd],
// g: [r].
int32_t CorrectedArgMax(Isa isa, const MarkovWeights& weights, std::span<const float> u,
                        std::span<const int32_t> top, const float* g);

// The heads of all sequences of a step, slot by slot: Read for every sequence, Mix by every worker, Finish
// for every sequence; then factor() is g of this slot.
class MarkovSteps {
 public:
  // `width`: d. The weights outlive this.
  MarkovSteps(const MarkovWeights& weights, int width, int max_sequences);

  // Starts a block for sequences 0 … sequences - 1.
  void Begin(int sequences);
  // `previous`: the token before the slot's. `hidden`: h [d].
  void Read(Isa isa, int sequence, int32_t previous, const float* hidden);
  // Expects a barrier before, ends with one. Nothing to do, and no barrier, when !mixes().
  void Mix(Worker& worker);
  void Finish(Isa isa, int sequence);
  bool mixes() const { return weights_.joint.n() > 0; }
  int rank() const { return rank_; }

  const float* embedding(int sequence) const { return input_.Row(sequence) + embedding_at_; }  // e [r]
  const float* factor(int sequence) const {                                                    // g [r]
    return mixes() ? factor_.data() + size_t(sequence) * size_t(rank_) : embedding(sequence);
  }
  const float* state(int sequence) const { return input_.Row(sequence); }  // rnn: s [r] after Finish
  size_t Bytes() const { return input_.Bytes() + mixed_.Bytes() + factor_.Bytes(); }

 private:
  void FinishGated(Isa isa, const float* e, float* z, float* g) const;
  void FinishRnn(Isa isa, float* s, float* z, float* g) const;

  const MarkovWeights& weights_;
  const int rank_, width_;
  int embedding_at_ = 0, hidden_at_ = 0;  // columns of input_
  Activations input_;                     // [sequences, what J reads]; vanilla: e alone
  size_t mixed_stride_ = 0;
  Buffer<float> mixed_;   // [sequences, mixed_stride_]: z
  Buffer<float> factor_;  // [sequences, r]: g
};

}  // namespace dspark

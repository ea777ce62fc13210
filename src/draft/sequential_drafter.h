// Drafters that draft one token a pass: Eagle3 and MTP (drafters.md §6, §11).
//
// One causal layer reads pairs: row i of a sequence pairs a state of position i with token i + 1, and its
// output y predicts token i + 2. An observed row's state comes from the target (its taps); behind the newest
// of them the layer goes on with its own y as the next state and its own draft as the next token. K/V of
// drafted rows are overwritten when the target's rows for their positions have been observed.
//
// Observe only copies taps: they are read many rows at a time, when a proposal needs them or the buffer is
// full. A row's bits do not depend on when that is or on what else is in the pass.
#pragma once

#include <span>
#include <vector>

#include "core/result.h"
#include "draft/draft_weights.h"
#include "draft/drafter.h"
#include "draft/registry.h"
#include "kv/block_pool.h"
#include "model/layer_stack.h"

namespace dspark {

class SequentialDrafter : public Drafter {
 public:
  ~SequentialDrafter() override;

  int max_tokens() const override { return config_.max_drafts(); }
  bool runs_model() const override { return true; }
  size_t weight_bytes() const override { return weights_.storage.Bytes() + head_copy_.Bytes(); }
  // K/V as far as address space goes: pages are backed when first written.
  size_t workspace_bytes() const override;

  // At most DrafterLimits::max_sequences at once. One that is already known starts anew.
  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  // Nothing for a sequence without observed rows.
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;
  KvTable* Context(SequenceId sequence) override { return &Find(sequence).kv; }
  // The state behind the rows comes with the next row that is observed: nothing is drafted before.
  void Resume(SequenceId sequence, int rows, int32_t next) override;

 protected:
  // `target` and `pool` outlive the drafter. `tap_width`: floats of an observed row.
  SequentialDrafter(const DrafterConfig& config, DraftWeights weights, const Target& target, ThreadPool& pool,
                    const DrafterLimits& limits, int tap_width);

  // A pass over the rows laid out, run by every worker, barriers before and after. On entry stack_.X(r) is
  // row r's state, or, if `observed`, undefined, and taps_ holds what the target told of it. On return it is
  // y.
  virtual void RunLayer(Worker& worker, bool observed) = 0;

  // pairs_ = [RMS(embedding of the row's token; token_norm) ; RMS(X; state_norm)], in int8 too for matrices
  // of `format` that want it; then a barrier.
  void MakePairs(Worker& worker, const std::vector<float>& token_norm, const std::vector<float>& state_norm,
                 WeightFormat format);

  int rows() const { return int(rows_.size()); }  // of the pass
  const LayerWeights& layer() const { return weights_.layers[0]; }

  const DrafterConfig config_;
  const DraftWeights weights_;
  LayerStack stack_;
  Activations taps_;   // [pending rows, tap_width]
  Activations pairs_;  // [rows, 2 d]

 private:
  friend class SequentialDrafterPeer;  // tests look at states and K/V

  struct Sequence {
    Sequence(BlockPool& pool, int d) : kv(pool), state(size_t(d)) {}
    bool used = false;
    SequenceId id = 0;
    KvTable kv;
    int rows = 0;              // observed, pending ones included
    std::vector<float> state;  // [d] y of the last observed row that is not pending
    bool has_state = false;
  };
  struct Row {
    Sequence* sequence;
    int position;
    int32_t token;  // at position + 1
  };
  // A sequence that is being drafted for. Lane i's state is stack_.X(i).
  struct Lane {
    const ProposeRequest* request;
    Sequence* sequence;
    int most;         // drafts still to come
    int32_t token{};  // the newest draft
  };

  Sequence& Find(SequenceId id);
  void LayOut(std::span<const Row> rows);
  void ReadPending();
  void FillLanes(std::span<ProposeRequest> requests);
  void Draw();
  int32_t DrawFrom(int lane);
  std::span<float> Logits(int lane) {
    return logits_.span().subspan(size_t(lane) * PadStride(head_.n()), size_t(head_.n()));
  }
  bool DrawsFromAll(const Lane& lane) const { return ids_.empty() || lane.request->sampler->greedy(); }
  // Of ids_ or values_.
  template <class T>
  std::span<T> LaneOf(std::vector<T>& of_lanes, int lane) {
    return std::span(of_lanes).subspan(size_t(lane) * size_t(candidates_), size_t(candidates_));
  }

  // Phases of a pass.
  void Head(Worker& worker);
  void Select(const Worker& worker);

  ThreadPool& pool_;
  const DrafterLimits limits_;
  const PackedMatrix& embedding_;  // [V, d]
  PackedMatrix head_copy_;
  const PackedMatrix& head_;  // [Vd, d]
  const int candidates_;      // of a sampled draft, 1 … Vd
  const int max_rows_;        // of a pass, and pending

  BlockPool blocks_;
  std::vector<Sequence> sequences_;  // [max_sequences]
  std::vector<Row> pending_;         // observed, not yet read: row i's taps are taps_.Row(i)
  std::vector<Row> drafted_;         // the newest draft of every lane
  std::vector<AttentionSegment> segments_;
  std::span<const Row> rows_;  // of the pass
  std::vector<Lane> lanes_;

  Activations head_input_;  // [lanes, d]
  Buffer<float> logits_;    // [lanes, PadStride(Vd)]
  // Of each lane's likeliest tokens, where there are fewer than Vd.
  std::vector<int32_t> ids_;         // [lanes, candidates_] as the target numbers them
  std::vector<float> values_;        // [lanes, candidates_] logits
  std::vector<int32_t> target_ids_;  // [Vd] the target's id of every draft id
};

}  // namespace dspark

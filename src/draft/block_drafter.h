// DSpark and DFlash (drafters.md §2, §5): one pass over a block of γ slots behind the newest token drafts all
// of its tokens; DSpark then corrects them one by one with a Markov head and says how sure it is.
//
// What the drafter knows of the text are context features: taps of the target's rows, projected once (fc,
// norm) and kept as K and V of every layer. Observe only copies taps; they are projected in one batch when
// the drafter proposes, or when `kPendingRows` wait, so that a drafter at rest costs next to nothing. Neither
// this nor the batch has a say in the bits of a proposal.
#pragma once

#include <memory>
#include <vector>

#include "draft/draft_weights.h"
#include "draft/markov_head.h"
#include "draft/registry.h"
#include "kv/block_pool.h"
#include "model/layer_stack.h"

namespace dspark {

struct BlockWeights {
  DraftWeights common;
  std::vector<float> context_norm;       // [d]
  MarkovWeights markov;                  // kNone: DFlash
  std::vector<float> confidence;         // w [d], or [d + r]; empty without the head
  std::vector<float> confidence_offset;  // b [1]
};

// Where the time of Propose went, in ms since the drafter was made.
struct BlockTimes {
  double flush = 0, layers = 0, head = 0, chain = 0;  // head: with the search for candidates
};

class BlockDrafter : public Drafter {
 public:
  static constexpr int kPendingRows = 256;

  // `target` and `pool` outlive the drafter.
  BlockDrafter(const DrafterConfig& config, BlockWeights weights, const Target& target, ThreadPool& pool,
               const DrafterLimits& limits);

  int max_tokens() const override { return config_.max_drafts(); }
  std::span<const int> tap_layers() const override { return config_.taps; }
  bool runs_model() const override { return true; }
  size_t weight_bytes() const override;
  size_t workspace_bytes() const override;
  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;
  KvTable* Context(SequenceId sequence) override { return &Find(sequence).kv; }
  void Resume(SequenceId sequence, int rows, int32_t next) override;

  const BlockTimes& times() const { return times_; }

 private:
  friend class BlockDrafterPeer;  // tests read hidden states, logits and K/V

  struct Sequence {
    SequenceId id;
    KvTable kv;
    int rows = 0;         // observed: positions 0 … rows - 1
    int32_t newest = -1;  // the token at position `rows`
  };
  // Consecutive rows of fc_input_ that wait for Flush.
  struct Pending {
    SequenceId sequence;
    int position, first_row, rows;
  };
  // One sequence of the present pass.
  struct Draft {
    ProposeRequest* request;
    int drafts;        // slots SlotsWithoutDraft() … + drafts - 1 propose
    int first;         // row of head_input_ of the first of them
    int32_t previous;  // the token before the slot that is being decided
    bool greedy;
  };

  int SlotsWithoutDraft() const { return config_.anchor_first ? 0 : 1; }
  Sequence& Find(SequenceId id);
  void Append(Sequence& sequence, const float* taps);
  void Flush();
  void FlushRows(Worker& worker);
  void AddDraft(ProposeRequest& request, Sequence& sequence);
  void RunBlocks();

  // The phases of RunBlocks, run by every worker.
  void Run(Worker& worker);
  void Layers(Worker& worker);
  void Embed(const Worker& worker);
  void Head(Worker& worker);
  void FindCandidates(const Worker& worker);
  void Chain(Worker& worker);
  void DecideSlot(Isa isa, int index, int slot);
  int32_t DrawSampled(Isa isa, const Draft& draft, int row, const float* g);
  float Confidence(Isa isa, int index, int slot) const;

  bool HasMarkov() const { return weights_.markov.kind != MarkovHead::kNone; }
  int CandidatesOf(const Draft& draft) const;
  std::span<float> Logits(int row) { return {logits_.data() + size_t(row) * logits_stride_, size_t(vocab_)}; }
  std::span<int32_t> TopIds(int row) {
    return {top_ids_.data() + size_t(row) * size_t(max_candidates_), size_t(max_candidates_)};
  }
  std::span<float> TopLogits(int row) {
    return {top_logits_.data() + size_t(row) * size_t(max_candidates_), size_t(max_candidates_)};
  }
  int32_t TargetId(int32_t id) const {
    return config_.draft_to_target.empty() ? id : config_.draft_to_target[size_t(id)];
  }

  const DrafterConfig config_;
  const BlockWeights weights_;
  ThreadPool& pool_;
  const PackedMatrix& embedding_;
  PackedMatrix head_copy_;
  const PackedMatrix& head_;
  std::vector<float> mask_embedding_;  // [d]
  const int vocab_;                    // Vd
  const int candidates_;               // of a sampled draft; Vd: all
  const int max_candidates_;           // of any draft
  const int sequences_per_pass_;       // so that the rows of a pass stay few enough
  const int max_sequences_;
  std::vector<int32_t> all_ids_;  // [Vd] target ids, when candidates are all

  LayerStack stack_;
  BlockPool kv_pool_;
  std::vector<Sequence> sequences_;

  Activations fc_input_;  // [kPendingRows, taps * target width]
  int pending_rows_ = 0;
  std::vector<Pending> pending_;
  Activations context_;  // [pending rows, d]: C of drafters.md §2.2

  std::vector<Draft> drafts_;
  std::vector<AttentionSegment> segments_;
  std::vector<int> head_rows_;  // the row of stack_ of each row of head_input_
  Activations head_input_;      // h [rows that propose, d]
  Buffer<float> logits_;        // U [rows that propose, logits_stride_]
  size_t logits_stride_ = 0;
  std::vector<int32_t> top_ids_;   // [rows that propose, max_candidates_]
  std::vector<float> top_logits_;  // the same of U
  MarkovSteps markov_;
  BlockTimes times_;
};

// Error: tensors that are missing or misshapen.
Result<std::unique_ptr<Drafter>> LoadBlockDrafter(const DrafterFiles& files, const Target& target,
                                                  ThreadPool& pool, const DrafterLimits& limits);

}  // namespace dspark

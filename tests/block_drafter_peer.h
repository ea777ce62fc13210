// What a block drafter computed last, for tests.
#pragma once

#include <vector>

#include "core/float16.h"
#include "draft/block_drafter.h"

namespace dspark {

class BlockDrafterPeer {
 public:
  explicit BlockDrafterPeer(Drafter& drafter) : d_(static_cast<BlockDrafter&>(drafter)) {}

  int width() const { return d_.config_.backbone.d_model; }
  int vocab() const { return d_.vocab_; }
  int pending_rows() const { return d_.pending_rows_; }
  // Of the last flush, the last pass, the slots that proposed in it.
  std::span<const float> Context(int row) const { return {d_.context_.Row(row), size_t(width())}; }
  std::span<const float> Residual(int row) { return {d_.stack_.X(row), size_t(width())}; }
  std::span<const float> Hidden(int row) const { return {d_.head_input_.Row(row), size_t(width())}; }
  std::span<const float> Logits(int row) { return d_.Logits(row); }
  // Inside a draw: the rnn head's state of sequence 0 after this slot.
  std::span<const float> State() const { return {d_.markov_.state(0), size_t(d_.markov_.rank())}; }

  // Element `dim` of K or V at a position. KvType::kF32.
  float Kv(SequenceId sequence, bool v, int layer, int head, int position, int dim) {
    const KvLayout layout = d_.stack_.kv_layout();
    const int block_tokens = layout.block_tokens, t = position % block_tokens;
    const auto* block =
        reinterpret_cast<const float*>(d_.Find(sequence).kv.blocks()[size_t(position / block_tokens)]);
    return v ? block[layout.VOffset(layer, head) + size_t(t * layout.head_dim + dim)]
             : block[layout.KOffset(layer, head) + size_t(dim * block_tokens + t)];
  }

 private:
  BlockDrafter& d_;
};

namespace test {

// Drafts what it is told, and keeps the logits it was offered, by token.
class ChainSampler : public DraftSampler {
 public:
  ChainSampler(std::vector<int32_t> tokens, int vocab) : tokens_(std::move(tokens)), vocab_(vocab) {}
  int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) override {
    std::vector<float> row(size_t(vocab_), -INFINITY);
    for (size_t i = 0; i < ids.size(); ++i) row[size_t(ids[i])] = logits[i];
    offered.push_back(std::move(row));
    if (peer) states.emplace_back(peer->State().begin(), peer->State().end());
    proposal->tokens.push_back(tokens_[offered.size() - 1]);
    return proposal->tokens.back();
  }

  BlockDrafterPeer* peer = nullptr;  // set: the rnn head's states are kept too
  std::vector<std::vector<float>> offered, states;

 private:
  const std::vector<int32_t> tokens_;
  const int vocab_;
};

}  // namespace test
}  // namespace dspark

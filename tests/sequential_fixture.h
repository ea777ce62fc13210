// What the tests of Eagle3 and MTP share: a target that only lends its embedding and head,
// samplers that record what they are given, and a look inside.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "draft/eagle3.h"
#include "draft/mtp.h"
#include "draft/sequential_drafter.h"

namespace dspark {

class SequentialDrafterPeer {
 public:
  // The state that lane i's newest logits were made from: of use while a sampler draws.
  static std::vector<float> LaneState(SequentialDrafter& drafter, int lane) {
    const float* x = drafter.stack_.X(lane);
    return {x, x + drafter.config_.backbone.d_model};
  }
  // y of the newest observed row.
  static std::vector<float> State(SequentialDrafter& drafter, SequenceId id) {
    drafter.ReadPending();
    return drafter.Find(id).state;
  }
  // K or V of positions 0 … rows - 1, [KV heads, rows, hd], of an fp32 cache.
  static std::vector<float> Cached(SequentialDrafter& drafter, SequenceId id, bool values, int rows) {
    drafter.ReadPending();
    const KvLayout layout = drafter.stack_.kv_layout();
    std::vector<float> out;
    for (int head = 0; head < layout.kv_heads; ++head) {
      const size_t offset = values ? layout.VOffset(0, head) : layout.KOffset(0, head);
      for (int p = 0; p < rows; ++p) {
        const std::byte* block = drafter.Find(id).kv.blocks()[size_t(p / layout.block_tokens)];
        const float* base = reinterpret_cast<const float*>(block) + offset;
        const int at = p % layout.block_tokens;
        for (int i = 0; i < layout.head_dim; ++i)
          out.push_back(values ? base[at * layout.head_dim + i] : base[i * layout.block_tokens + at]);
      }
    }
    return out;
  }
  static int FreeBlocks(const SequentialDrafter& drafter) { return drafter.blocks_.free_blocks(); }

 protected:
  // The pending rows as a pass that has not begun.
  static void LayOutPending(SequentialDrafter& drafter) {
    drafter.LayOut(drafter.pending_);
    drafter.taps_.Resize(drafter.rows(), drafter.taps_.cols());
  }
  static ThreadPool& Pool(SequentialDrafter& drafter) { return drafter.pool_; }
};

class Eagle3Peer : public SequentialDrafterPeer {
 public:
  // fc · taps of the pending rows, [rows, d].
  static std::vector<float> Fused(Eagle3& drafter) {
    LayOutPending(drafter);
    Pool(drafter).Run([&](Worker& worker) { drafter.Fuse(worker); });
    std::vector<float> out;
    for (int r = 0; r < drafter.rows(); ++r) {
      const std::vector<float> row = LaneState(drafter, r);
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
};

namespace test {

inline PackedMatrix PackFloats(int n, int k, const std::vector<float>& values) {
  PackedMatrix matrix(n, k, WeightFormat::kF32);
  for (int r = 0; r < n; ++r) matrix.SetRowFromFloats(r, &values[size_t(r * k)]);
  return matrix;
}

// Runs nothing.
class LendingTarget : public Target {
 public:
  LendingTarget(const ModelConfig& config, PackedMatrix embedding, PackedMatrix head)
      : config_(config), embedding_(std::move(embedding)), head_(std::move(head)) {}
  const ModelConfig& config() const override { return config_; }
  const TargetLimits& limits() const override { return limits_; }
  KvLayout kv_layout() const override { return {}; }
  TargetMemory memory() const override { return {}; }
  const PackedMatrix& embedding() const override { return embedding_; }
  const PackedMatrix& head() const override { return head_; }
  Isa isa() const override { return DetectIsa(); }
  ForwardOutput Forward(std::span<const Segment>, std::span<const int>) override { return {}; }

 private:
  ModelConfig config_;
  TargetLimits limits_;
  PackedMatrix embedding_, head_;
};

// Draws the tokens it was given, then whatever is likeliest, and keeps ids, logits and states.
class RecordingSampler : public DraftSampler {
 public:
  explicit RecordingSampler(std::vector<int32_t> tokens = {}, SequentialDrafter* drafter = nullptr)
      : tokens_(std::move(tokens)), drafter_(drafter) {}

  int32_t Draw(std::span<const int32_t> candidates, std::span<float> values, Proposal* proposal) override {
    const size_t k = proposal->tokens.size();
    const size_t best = size_t(std::max_element(values.begin(), values.end()) - values.begin());
    const int32_t token = k < tokens_.size() ? tokens_[k] : candidates[best];
    ids.assign(candidates.begin(), candidates.end());
    logits.insert(logits.end(), values.begin(), values.end());
    if (drafter_) {  // alone in its call: lane 0
      const std::vector<float> state = SequentialDrafterPeer::LaneState(*drafter_, 0);
      states.insert(states.end(), state.begin(), state.end());
    }
    proposal->tokens.push_back(token);
    return token;
  }

  std::vector<int32_t> ids;   // of the last draw
  std::vector<float> logits;  // of all draws
  std::vector<float> states;  // [draws, d], where the drafter is known

 private:
  std::vector<int32_t> tokens_;
  SequentialDrafter* drafter_;
};

inline Proposal ProposeAlone(Drafter& drafter, SequenceId id, DraftSampler* sampler, int most = 1 << 20) {
  Proposal proposal;
  ProposeRequest request{.sequence = id, .max_tokens = most, .proposal = &proposal, .sampler = sampler};
  drafter.Propose({&request, 1});
  return proposal;
}

// Rows [from, to) of a text whose rows' taps lie one after the other.
inline void ObserveRows(Drafter& drafter, SequenceId id, int from, int to, std::span<const int32_t> text,
                        std::span<const float> taps, size_t width) {
  const ObservedRows rows{.sequence = id,
                          .position = from,
                          .next = text.subspan(size_t(from) + 1, size_t(to - from)),
                          .committed = to - from,
                          .taps = taps.data() + size_t(from) * width,
                          .taps_stride = width};
  drafter.Observe({&rows, 1});
}

inline float MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  float most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace test
}  // namespace dspark

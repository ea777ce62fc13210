// How likely the next draft is to be kept: a running estimate from what happened to earlier ones.
//
// Only the past of a sequence enters, so a length chosen by it never depends on the tokens it decides about
// (docs/lossless.md). Every proposal counts, verified or not: a draft that was not verified is compared with
// the text as it came, so a parked source is still measured, for free.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/function_ref.h"
#include "draft/drafter.h"

namespace dspark {

// What became of a proposal: its first `kept` drafts were the text; `examined` of them were compared (kept or
// kept + 1).
struct DraftOutcome {
  DraftOrigin origin = DraftOrigin::kModel;
  int match_length = 0;  // as the proposal's
  int kept = 0, examined = 0;
  std::span<const float> confidence = {};  // of its drafts, or empty
};

class AcceptanceEstimate {
 public:
  AcceptanceEstimate();

  // Estimate of P(draft k + 1 of `proposal` kept | drafts 1 … k kept), k from 0, and the number kept of all.
  float Kept(const Proposal& proposal, int k) const;
  double Kept(const Proposal& proposal) const;
  // The same of `drafts` drafts that a model is still to make.
  double KeptOfModel(int drafts) const;
  // Whether a model's drafts were seen often enough for that to be more than a guess.
  bool KnowsModel() const { return model_outcomes_ >= kEnough; }

  // Estimate of P(draft k + 1 kept | drafts 1 … k kept), k from 0. `match_length` is the proposal's (0: not a
  // look-up). A look-up's match grows with every kept draft, so its cells are keyed by match_length + k,
  // others by k.
  float Conditional(int match_length, int k) const;

  // The drafter's own c_k, corrected by how often such drafts were kept in proportion to what c promised: an
  // untrained or miscalibrated confidence head costs a few rounds, not speed.
  float Corrected(DraftOrigin origin, int k, float confidence) const;

  void Record(const DraftOutcome& outcome);

  // Begins with what another sequence has learned, as a prior worth a few outcomes.
  void StartFrom(const AcceptanceEstimate& other);

 private:
  struct Cell {
    float kept = 0, seen = 0;  // decayed counts, a prior included
  };
  static constexpr int kCells = 32, kEnough = 8;
  using Cells = std::array<Cell, kCells>;
  Cells by_match_, by_position_;
  // [origin] of position k: kept, and the sum of c where one was seen
  std::array<Cells, kDraftOrigins> by_confidence_;
  int model_outcomes_ = 0;

  static int Index(int match_length, int k);
};

// The proposal under observation: its drafts are compared with tokens as they are committed.
class ShadowProposal {
 public:
  bool active() const { return active_; }
  void Start(const Proposal& proposal);
  void Stop() { active_ = false; }

  // Committed tokens, in order. The outcome, once it is known; its confidence is valid until the next Start.
  std::optional<DraftOutcome> Compare(std::span<const int32_t> committed);

 private:
  bool active_ = false;
  DraftOrigin origin_ = DraftOrigin::kModel;
  int match_length_ = 0, matched_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<float> confidence_;
};

// One sequence's estimate, and of every origin the proposal that it learns from next.
class DraftWatch : public DraftJudge {
 public:
  AcceptanceEstimate acceptance;

  double Weigh(const Proposal& proposal) override;
  // Puts a proposal that was not sampled under observation, unless one of its origin is.
  void Watch(const Proposal& proposal);
  void Stop();
  // Committed tokens, in order, for all that is under observation.
  void Compare(std::span<const int32_t> committed, FunctionRef<void(const DraftOutcome&)> record);

 private:
  std::array<ShadowProposal, kDraftOrigins> shadows_;
};

}  // namespace dspark

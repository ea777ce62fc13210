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

#include "draft/proposal.h"

namespace dspark {

class AcceptanceEstimate {
 public:
  AcceptanceEstimate();

  // Estimate of P(draft k + 1 kept | drafts 1 … k kept), k from 0. `match_length` is the proposal's (0: not a
  // look-up). A look-up's match grows with every kept draft, so its cells are keyed by match_length + k,
  // others by k. Of forced text the first draft alone is in doubt: a text goes on as it was cut.
  float Conditional(int match_length, int k) const;
  // Of `drafts` drafts: how many are kept.
  float Expected(int match_length, int drafts) const;

  // The drafter's own c_k, corrected by how often such drafts were kept in proportion to what c promised: an
  // untrained or miscalibrated confidence head costs a few rounds, not speed.
  float Corrected(int k, float confidence) const;

  // A proposal whose first `kept` drafts were the text; `examined` of them were compared (kept or kept + 1).
  // `confidence` of its drafts, or empty.
  void Record(int match_length, int kept, int examined, std::span<const float> confidence = {});

  // Begins with what another sequence has learned, as a prior worth a few outcomes.
  void StartFrom(const AcceptanceEstimate& other);

 private:
  struct Cell {
    float kept = 0, seen = 0;  // decayed counts, a prior included
  };
  static constexpr int kCells = 34;
  static constexpr int kForcedCell = kCells - 2;  // and the next
  std::array<Cell, kCells> by_match_, by_position_;
  std::array<Cell, kCells> by_confidence_;  // of position k: kept, and the sum of c where one was seen

  static int Index(int match_length, int k);
};

// The proposal under observation: its drafts are compared with tokens as they are committed.
class ShadowProposal {
 public:
  bool active() const { return active_; }
  void Start(const Proposal& proposal);
  void Stop() { active_ = false; }

  struct Outcome {
    int match_length = 0, kept = 0, examined = 0;
    std::span<const float> confidence;  // valid until the next Start
  };
  // Committed tokens, in order. The outcome, once it is known.
  std::optional<Outcome> Compare(std::span<const int32_t> committed);

 private:
  bool active_ = false;
  int match_length_ = 0, matched_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<float> confidence_;
};

}  // namespace dspark

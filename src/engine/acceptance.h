// How likely the next draft is to be kept: a running estimate from what happened to earlier ones.
//
// Only the past of a sequence enters, so a length chosen by it never depends on the tokens it decides about
// (docs/lossless.md). Every proposal counts, verified or not: a draft that was not verified is compared with
// the text as it came, so a parked source is still measured, for free.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "draft/proposal.h"

namespace dspark {

class AcceptanceEstimate {
 public:
  AcceptanceEstimate();

  // Estimate of P(draft k + 1 kept | drafts 1 … k kept), k from 0. `match_length` is the proposal's (0: not a
  // look-up). A look-up's match grows with every kept draft, so its cells are keyed by match_length + k,
  // others by k.
  float Conditional(int match_length, int k) const;

  // A proposal whose first `kept` drafts were the text; `examined` of them were compared (kept or kept + 1).
  void Record(int match_length, int kept, int examined);

 private:
  struct Cell {
    float kept = 0, seen = 0;  // decayed counts, a prior included
  };
  static constexpr int kCells = 32;
  std::array<Cell, kCells> by_match_, by_position_;

  static int Index(int match_length, int k);
};

// The proposal under observation: its drafts are compared with tokens as they are committed.
class ShadowProposal {
 public:
  bool active() const { return active_; }
  void Start(const Proposal& proposal);
  // Committed tokens, in order; records the outcome once it is known.
  void Compare(std::span<const int32_t> committed, AcceptanceEstimate* estimate);

 private:
  bool active_ = false;
  int match_length_ = 0, matched_ = 0;
  std::vector<int32_t> tokens_;
};

}  // namespace dspark

#include "engine/acceptance.h"

#include <algorithm>

namespace dspark {
namespace {

constexpr float kDecay = 0.97f;  // weight of older outcomes, per outcome of the same cell

// A prior is worth one outcome: a source that never holds is parked after a handful of rounds, about one step
// lost.
constexpr float kPriorWeight = 1.0f;

// Before any evidence: short matches rarely hold, long ones mostly do (prompt lookup on chat, code and math).
float MatchPrior(int length) { return std::min(0.92f, 0.2f + 0.06f * float(length)); }
constexpr float kPositionPrior = 0.4f;

}  // namespace

AcceptanceEstimate::AcceptanceEstimate() {
  for (int i = 0; i < kCells; ++i) {
    by_match_[i] = {MatchPrior(i) * kPriorWeight, kPriorWeight};
    by_position_[i] = {kPositionPrior * kPriorWeight, kPriorWeight};
  }
}

int AcceptanceEstimate::Index(int match_length, int k) { return std::min(match_length + k, kCells - 1); }

float AcceptanceEstimate::Conditional(int match_length, int k) const {
  const Cell& cell = match_length > 0 ? by_match_[Index(match_length, k)] : by_position_[Index(0, k)];
  return cell.kept / cell.seen;
}

void AcceptanceEstimate::Record(int match_length, int kept, int examined) {
  auto& cells = match_length > 0 ? by_match_ : by_position_;
  for (int k = 0; k < examined; ++k) {
    Cell& cell = cells[Index(match_length, k)];
    cell.kept = kDecay * cell.kept + (k < kept ? 1.0f : 0.0f);
    cell.seen = kDecay * cell.seen + 1.0f;
  }
}

void ShadowProposal::Start(const Proposal& proposal) {
  active_ = proposal.size() > 0;
  match_length_ = proposal.match_length;
  matched_ = 0;
  tokens_.assign(proposal.tokens.begin(), proposal.tokens.end());
}

void ShadowProposal::Compare(std::span<const int32_t> committed, AcceptanceEstimate* estimate) {
  for (size_t i = 0; active_ && i < committed.size(); ++i) {
    const bool same = tokens_[matched_] == committed[i];
    matched_ += same;
    if (same && matched_ < int(tokens_.size())) continue;
    estimate->Record(match_length_, matched_, matched_ + !same);
    active_ = false;
  }
}

}  // namespace dspark

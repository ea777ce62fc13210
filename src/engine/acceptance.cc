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
// Nothing else may be written; only the cut into tokens is guessed.
constexpr float kForcedPrior = 0.9f;

}  // namespace

AcceptanceEstimate::AcceptanceEstimate() {
  for (int i = 0; i < kCells; ++i) {
    by_match_[i] = {MatchPrior(i) * kPriorWeight, kPriorWeight};
    by_position_[i] = {kPositionPrior * kPriorWeight, kPriorWeight};
    by_confidence_[i] = {kPriorWeight, kPriorWeight};
  }
  by_match_[kForcedCell] = by_match_[kForcedCell + 1] = {kForcedPrior * kPriorWeight, kPriorWeight};
}

int AcceptanceEstimate::Index(int match_length, int k) {
  if (match_length == Proposal::kForced) return kForcedCell + std::min(k, 1);
  return std::min(match_length + k, kForcedCell - 1);
}

float AcceptanceEstimate::Conditional(int match_length, int k) const {
  const Cell& cell = match_length > 0 ? by_match_[Index(match_length, k)] : by_position_[Index(0, k)];
  return cell.kept / cell.seen;
}

float AcceptanceEstimate::Expected(int match_length, int drafts) const {
  float expected = 0, all_kept = 1;
  for (int k = 0; k < drafts; ++k) {
    all_kept *= Conditional(match_length, k);
    expected += all_kept;
  }
  return expected;
}

float AcceptanceEstimate::Corrected(int k, float confidence) const {
  const Cell& cell = by_confidence_[Index(0, k)];
  return std::min(1.0f, confidence * cell.kept / cell.seen);
}

void AcceptanceEstimate::Record(int match_length, int kept, int examined, std::span<const float> confidence) {
  auto& cells = match_length > 0 ? by_match_ : by_position_;
  for (int k = 0; k < examined; ++k) {
    Cell& cell = cells[Index(match_length, k)];
    cell.kept = kDecay * cell.kept + (k < kept ? 1.0f : 0.0f);
    cell.seen = kDecay * cell.seen + 1.0f;
    if (k >= int(confidence.size())) continue;
    Cell& promise = by_confidence_[Index(0, k)];
    promise.kept = kDecay * promise.kept + (k < kept ? 1.0f : 0.0f);
    promise.seen = kDecay * promise.seen + confidence[k];
  }
}

void AcceptanceEstimate::StartFrom(const AcceptanceEstimate& other) {
  constexpr float kWorth = 4;
  const auto start = [](std::array<Cell, kCells>* cells, const std::array<Cell, kCells>& from) {
    for (int i = 0; i < kCells; ++i) {
      const float scale = std::min(1.0f, kWorth / from[i].seen);
      (*cells)[i] = {from[i].kept * scale, from[i].seen * scale};
    }
  };
  start(&by_match_, other.by_match_);
  start(&by_position_, other.by_position_);
  start(&by_confidence_, other.by_confidence_);
}

void ShadowProposal::Start(const Proposal& proposal) {
  active_ = proposal.size() > 0;
  match_length_ = proposal.match_length;
  matched_ = 0;
  tokens_.assign(proposal.tokens.begin(), proposal.tokens.end());
  confidence_.assign(proposal.confidence.begin(), proposal.confidence.end());
}

std::optional<ShadowProposal::Outcome> ShadowProposal::Compare(std::span<const int32_t> committed) {
  for (size_t i = 0; active_ && i < committed.size(); ++i) {
    const bool same = tokens_[matched_] == committed[i];
    matched_ += same;
    if (same && matched_ < int(tokens_.size())) continue;
    active_ = false;
    return Outcome{match_length_, matched_, matched_ + !same, confidence_};
  }
  return {};
}

}  // namespace dspark

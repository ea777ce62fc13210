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
    for (Cells& cells : by_confidence_) cells[i] = {kPriorWeight, kPriorWeight};
  }
}

int AcceptanceEstimate::Index(int match_length, int k) { return std::min(match_length + k, kCells - 1); }

float AcceptanceEstimate::Conditional(int match_length, int k) const {
  const Cell& cell = match_length > 0 ? by_match_[Index(match_length, k)] : by_position_[Index(0, k)];
  return cell.kept / cell.seen;
}

float AcceptanceEstimate::Corrected(DraftOrigin origin, int k, float confidence) const {
  const Cell& cell = by_confidence_[size_t(origin)][Index(0, k)];
  return std::min(1.0f, confidence * cell.kept / cell.seen);
}

float AcceptanceEstimate::Kept(const Proposal& proposal, int k) const {
  if (k < int(proposal.confidence.size())) return Corrected(proposal.origin, k, proposal.confidence[k]);
  return Conditional(proposal.match_length, k);
}

double AcceptanceEstimate::Kept(const Proposal& proposal) const {
  double cumulative = 1, kept = 0;
  for (int k = 0; k < proposal.size(); ++k) kept += cumulative *= double(Kept(proposal, k));
  return kept;
}

double AcceptanceEstimate::KeptOfModel(int drafts) const {
  double cumulative = 1, kept = 0;
  for (int k = 0; k < drafts; ++k) kept += cumulative *= double(Conditional(/*match_length=*/0, k));
  return kept;
}

void AcceptanceEstimate::Record(const DraftOutcome& outcome) {
  const auto add = [](Cell& cell, bool kept, float promised) {
    cell.kept = kDecay * cell.kept + float(kept);
    cell.seen = kDecay * cell.seen + promised;
  };
  const bool model = outcome.origin == DraftOrigin::kModel;
  if (model) model_outcomes_ = std::min(model_outcomes_ + 1, kEnough);
  for (int k = 0; k < outcome.examined; ++k) {
    const bool kept = k < outcome.kept;
    if (outcome.match_length > 0) add(by_match_[Index(outcome.match_length, k)], kept, 1);
    if (model) add(by_position_[Index(0, k)], kept, 1);
    if (k >= int(outcome.confidence.size())) continue;
    add(by_confidence_[size_t(outcome.origin)][Index(0, k)], kept, outcome.confidence[k]);
  }
}

void AcceptanceEstimate::StartFrom(const AcceptanceEstimate& other) {
  constexpr float kWorth = 4;
  const auto start = [](Cells* cells, const Cells& from) {
    for (int i = 0; i < kCells; ++i) {
      const float scale = std::min(1.0f, kWorth / from[i].seen);
      (*cells)[i] = {from[i].kept * scale, from[i].seen * scale};
    }
  };
  start(&by_match_, other.by_match_);
  start(&by_position_, other.by_position_);
  for (size_t origin = 0; origin < by_confidence_.size(); ++origin)
    start(&by_confidence_[origin], other.by_confidence_[origin]);
  model_outcomes_ = other.model_outcomes_;
}

void ShadowProposal::Start(const Proposal& proposal) {
  active_ = proposal.size() > 0;
  origin_ = proposal.origin;
  match_length_ = proposal.match_length;
  matched_ = 0;
  tokens_.assign(proposal.tokens.begin(), proposal.tokens.end());
  confidence_.assign(proposal.confidence.begin(), proposal.confidence.end());
}

std::optional<DraftOutcome> ShadowProposal::Compare(std::span<const int32_t> committed) {
  for (size_t i = 0; active_ && i < committed.size(); ++i) {
    const bool same = tokens_[matched_] == committed[i];
    matched_ += same;
    if (same && matched_ < int(tokens_.size())) continue;
    active_ = false;
    return DraftOutcome{origin_, match_length_, matched_, matched_ + !same, confidence_};
  }
  return {};
}

double DraftWatch::Weigh(const Proposal& proposal) {
  Watch(proposal);
  return acceptance.Kept(proposal);
}

void DraftWatch::Watch(const Proposal& proposal) {
  ShadowProposal& shadow = shadows_[size_t(proposal.origin)];
  if (!shadow.active()) shadow.Start(proposal);
}

void DraftWatch::Stop() {
  for (ShadowProposal& shadow : shadows_) shadow.Stop();
}

void DraftWatch::Compare(std::span<const int32_t> committed, FunctionRef<void(const DraftOutcome&)> record) {
  for (ShadowProposal& shadow : shadows_) {
    if (const auto outcome = shadow.Compare(committed)) record(*outcome);
  }
}

}  // namespace dspark

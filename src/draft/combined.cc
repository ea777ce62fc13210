#include "draft/combined.h"

#include <algorithm>

#include "core/check.h"

namespace dspark {
namespace {

// Without a judge: what confidences promise, and of a copy a third of its match.
double Promise(const Proposal& proposal) {
  if (proposal.confidence.empty()) return double(proposal.match_length) / 3;
  double cumulative = 1, kept = 0;
  for (const float c : proposal.confidence) kept += cumulative *= double(c);
  return kept;
}

std::vector<std::unique_ptr<Drafter>> WithModel(std::vector<std::unique_ptr<Drafter>> free,
                                                std::unique_ptr<Drafter> model) {
  DSPARK_CHECK(!free.empty());
  if (model) free.push_back(std::move(model));
  return free;
}

}  // namespace

CombinedDrafter::CombinedDrafter(std::vector<std::unique_ptr<Drafter>> free, std::unique_ptr<Drafter> model)
    : drafters_(WithModel(std::move(free), std::move(model))),
      model_(drafters_.back()->runs_model() ? drafters_.back().get() : nullptr) {}

int CombinedDrafter::max_tokens() const {
  int most = 0;
  for (const auto& drafter : drafters_) most = std::max(most, drafter->max_tokens());
  return most;
}

std::span<const int> CombinedDrafter::tap_layers() const {
  return model_ ? model_->tap_layers() : std::span<const int>();
}

size_t CombinedDrafter::Sum(size_t (Drafter::*bytes)() const) const {
  size_t sum = 0;
  for (const auto& drafter : drafters_) sum += (drafter.get()->*bytes)();
  return sum;
}

void CombinedDrafter::Begin(SequenceId sequence, std::span<const int32_t> prompt) {
  for (const auto& drafter : drafters_) drafter->Begin(sequence, prompt);
}

void CombinedDrafter::ProposeFree(const ProposeRequest& request) {
  double best = 0;
  for (const auto& drafter : drafters_) {
    if (drafter.get() == model_) continue;
    other_.Clear();
    ProposeRequest one = request;
    one.proposal = &other_;
    drafter->Propose({&one, 1});
    if (other_.size() == 0) continue;
    const double kept = request.judge ? request.judge->Weigh(other_) : Promise(other_);
    if (kept <= best) continue;
    best = kept;
    std::swap(*request.proposal, other_);
  }
}

void CombinedDrafter::Propose(std::span<ProposeRequest> requests) {
  model_requests_.clear();
  for (const ProposeRequest& request : requests) {
    if (request.free_only || !model_) {
      ProposeFree(request);
      continue;
    }
    model_requests_.push_back(request);
    model_requests_.back().max_tokens = std::min(request.max_tokens, model_->max_tokens());
  }
  if (!model_requests_.empty()) model_->Propose(model_requests_);
}

void CombinedDrafter::Observe(std::span<const ObservedRows> rows) {
  for (const auto& drafter : drafters_) drafter->Observe(rows);
}

void CombinedDrafter::End(SequenceId sequence) {
  for (const auto& drafter : drafters_) drafter->End(sequence);
}

}  // namespace dspark

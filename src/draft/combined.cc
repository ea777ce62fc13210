#include "draft/combined.h"

namespace dspark {

void CombinedDrafter::Begin(SequenceId sequence, std::span<const int32_t> prompt) {
  lookup_->Begin(sequence, prompt);
  model_->Begin(sequence, prompt);
}

void CombinedDrafter::Propose(std::span<ProposeRequest> requests) {
  lookup_->Propose(requests);
  model_requests_.clear();
  for (ProposeRequest& request : requests) {
    if (request.free_only || request.proposal->match_length >= kLongMatch) continue;
    request.proposal->Clear();
    model_requests_.push_back(request);
    model_requests_.back().max_tokens = std::min(request.max_tokens, model_->max_tokens());
  }
  if (!model_requests_.empty()) model_->Propose(model_requests_);
}

void CombinedDrafter::Observe(std::span<const ObservedRows> rows) {
  lookup_->Observe(rows);
  model_->Observe(rows);
}

void CombinedDrafter::End(SequenceId sequence) {
  lookup_->End(sequence);
  model_->End(sequence);
}

}  // namespace dspark

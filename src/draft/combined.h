// Several sources for one sequence: prompt lookup and a counted table, which cost nothing, and perhaps a
// trained drafter.
#pragma once

#include <memory>
#include <vector>

#include "draft/drafter.h"

namespace dspark {

// Of the free sources the one proposes of which most drafts should be kept (ProposeRequest::judge). A request
// that is not free_only asks the model alone.
class CombinedDrafter : public Drafter {
 public:
  // `free` run no model, at least one; `model` may be null.
  CombinedDrafter(std::vector<std::unique_ptr<Drafter>> free, std::unique_ptr<Drafter> model);

  int max_tokens() const override;
  std::span<const int> tap_layers() const override;
  bool runs_model() const override { return model_ != nullptr; }
  bool has_free_drafts() const override { return true; }
  size_t weight_bytes() const override { return Sum(&Drafter::weight_bytes); }
  size_t workspace_bytes() const override { return Sum(&Drafter::workspace_bytes); }

  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;
  KvTable* Context(SequenceId sequence) override { return model_ ? model_->Context(sequence) : nullptr; }
  void Resume(SequenceId sequence, int rows, int32_t next) override {
    if (model_) model_->Resume(sequence, rows, next);
  }

 private:
  void ProposeFree(const ProposeRequest& request);
  size_t Sum(size_t (Drafter::*bytes)() const) const;

  std::vector<std::unique_ptr<Drafter>> drafters_;  // the free ones, then the model
  Drafter* const model_;
  Proposal other_;                              // kept between steps
  std::vector<ProposeRequest> model_requests_;  // likewise
};

}  // namespace dspark

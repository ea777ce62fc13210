// Two sources for one sequence: prompt lookup where its match is long, the trained drafter elsewhere.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "draft/drafter.h"

namespace dspark {

class CombinedDrafter : public Drafter {
 public:
  // A copy whose context matched this far is rarely wrong, longer than a trained block, and free.
  static constexpr int kLongMatch = 8;

  CombinedDrafter(std::unique_ptr<Drafter> lookup, std::unique_ptr<Drafter> model)
      : lookup_(std::move(lookup)), model_(std::move(model)) {}

  int max_tokens() const override { return std::max(lookup_->max_tokens(), model_->max_tokens()); }
  std::span<const int> tap_layers() const override { return model_->tap_layers(); }
  bool runs_model() const override { return true; }
  size_t weight_bytes() const override { return model_->weight_bytes(); }
  size_t workspace_bytes() const override { return model_->workspace_bytes(); }

  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;
  KvTable* Context(SequenceId sequence) override { return model_->Context(sequence); }
  void Resume(SequenceId sequence, int rows, int32_t next) override { model_->Resume(sequence, rows, next); }

 private:
  std::unique_ptr<Drafter> lookup_, model_;
  std::vector<ProposeRequest> model_requests_;  // kept between steps
};

}  // namespace dspark

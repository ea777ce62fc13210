// The running target as a source of samples: nothing is stored, and what is taught is what will be served.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/loss_mask.h"
#include "data/train_sample.h"
#include "model/target.h"

namespace dspark {

// Runs samples through a target for their hidden states, and for its likeliest tokens where they are asked
// for.
class Teacher {
 public:
  // `tap_layers` as Target::Forward takes them; none: samples hold the last hidden state alone. The target,
  // which has limits().max_taps for them and one more (the final norm's output), and the pool outlive this.
  // `top`: samples also hold the k likeliest tokens (TrainSample::top) of the rows that a loss can ask for;
  // limits().max_logit_rows then is max_rows.
  Teacher(Target& target, BlockPool& blocks, std::vector<int> tap_layers, int top = 0);

  // Blocks of a pool that keeps Run's batches full with samples of up to `max_length` tokens.
  static int BlocksFor(const Target& target, int max_length);

  // Error: the sample is longer than the target's context or the pool, or has ids outside the vocabulary.
  Status Check(const TrainTokens& tokens) const;

  // The samples' states, in order; ids are left 0. Rows of all samples share passes of up to
  // limits().max_rows; a sample's states are the same bits whatever runs beside it. Error: the target gives
  // no finite states.
  Result<std::vector<TrainSample>> Run(std::span<const TrainTokens* const> samples);

  const std::vector<int>& tap_layers() const { return tap_layers_; }
  int top() const { return top_; }
  const ModelConfig& config() const { return target_.config(); }

 private:
  // The rows of one sample in the next pass, and which of them give logits.
  struct Part {
    size_t sample;
    int begin, rows, logits_from;
  };
  struct Running;
  std::vector<Part> PlanPass(std::span<const TrainTokens* const> samples, Running* running) const;
  TrainSample Begin(const TrainTokens& tokens) const;
  Status AddTop(const Part& part, const float* logits, size_t stride, TrainSample* sample) const;

  Target& target_;
  BlockPool& blocks_;
  std::vector<int> tap_layers_, asked_;  // asked_: with the final norm's
  int top_;
};

class LiveSource : public SampleSource {
 public:
  // `samples` are in the order of their indices. Error: as Teacher::Check, with the sample's index.
  static Result<std::unique_ptr<LiveSource>> Make(std::vector<TrainTokens> samples, Teacher teacher,
                                                  std::string target_name);

  const SampleShape& shape() const override { return shape_; }
  int64_t size() const override { return int64_t(samples_.size()); }
  // One batch of passes for all indices.
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override;
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override;

 private:
  LiveSource(std::vector<TrainTokens> samples, Teacher teacher, SampleShape shape)
      : samples_(std::move(samples)), teacher_(std::move(teacher)), shape_(std::move(shape)) {}

  std::vector<TrainTokens> samples_;
  Teacher teacher_;
  SampleShape shape_;
};

}  // namespace dspark

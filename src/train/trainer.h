// Trains a drafter (drafters.md §13): samples in, optimizer steps and checkpoints out.
//
// A step's samples are shared out among threads that each run their own forward and backward passes; their
// gradients are added in fp32 and in a fixed order. A run is therefore a function of its configuration, its
// source and its number of threads, and goes on bit for bit from a checkpoint. Several processes can share
// the samples: the same steps, but for the rounding of sums. Knows nothing of torch here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.h"
#include "data/train_sample.h"
#include "load/model_files.h"
#include "train/block_metrics.h"
#include "train/train_config.h"

namespace dspark {

class ProcessGroup;

// Of one optimizer step, the same in all processes but for the times.
struct StepReport {
  int64_t step = 0;  // counting from 1
  double loss = 0, grad_norm = 0, learning_rate = 0;
  int64_t anchors = 0, positions = 0;  // blocks or rows trained on; tokens of the samples
  double source_ms = 0, train_ms = 0, optimizer_ms = 0;
  double exchange_ms = 0;  // with other processes, waiting for them included
  BlockMetrics metrics{0};
};

class Trainer {
 public:
  // `source` outlives the trainer and has the drafter's taps; `target` is read for embedding, head and
  // initial layers. A reduced vocabulary is chosen here, from samples of the source. `group`: the processes
  // that share the work, each with a trainer of the same configuration and source (it outlives the trainer;
  // null: this one alone). All functions below but Save are called by all of them. Error: what does not fit
  // together; a process that ended.
  static Result<std::unique_ptr<Trainer>> Make(const TrainConfig& config, const ModelFiles& target,
                                               SampleSource& source, ProcessGroup* group = nullptr);
  ~Trainer();

  int64_t step() const;  // steps done
  int64_t total_steps() const;
  const DrafterConfig& drafter() const;

  // The next optimizer step. Error: the source's, or a loss that is no number.
  Result<StepReport> Step();

  // Writes DIR/step_N (config.json and model.safetensors as DeepSpec has them, or V3 of MTP, and the state to
  // go on from),
  // points DIR/step_latest to it and removes older ones. Whole or not at all, whenever the process dies.
  Status Save(const std::string& dir) const;
  // Goes on from DIR/step_latest, or where that is lost from the highest whole step_N; false when there is no
  // checkpoint. Error: none that is whole, or one that is damaged, of another configuration or of other data.
  // The first process reads, the others get all from it; the number of processes may change.
  Result<bool> Resume(const std::string& dir);

 private:
  struct State;
  explicit Trainer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dspark

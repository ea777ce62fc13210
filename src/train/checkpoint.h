// Checkpoints of a training run.
//
// DIR/step_N holds config.json and model.safetensors, DeepSpec's files of the drafter (drafters.md §12; MTP:
// DeepSeek-V3's, §11; with a reduced vocabulary also d2t, which neither knows), and training.json and
// training.safetensors: the configuration, the steps done, fp32 masters and Adam's moments. DIR/step_latest
// points to the newest.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "train/adamw.h"
#include "train/parameters.h"

namespace dspark {

struct Checkpoint {
  const DrafterConfig& config;
  const TensorSource& target;  // whose embedding and head are written with the drafter
  Parameters& parameters;
  AdamW& adam;
  nlohmann::ordered_json training_keys;         // of config.json, beside the drafter's own
  torch::ScalarType stored = torch::kBFloat16;  // of model.safetensors
};

// `training` becomes training.json, with the key "step". Of older checkpoints `kept` - 1 stay.
Status SaveCheckpoint(const Checkpoint& checkpoint, const nlohmann::ordered_json& training, int64_t step,
                      int kept, const std::string& dir);

// training.json of the checkpoint that FindCheckpoint finds, null when there is none.
Result<nlohmann::json> ReadTrainingJson(const std::string& dir);
// The tensors that a run goes on from: masters and moments.
std::vector<torch::Tensor> RunningState(const Checkpoint& checkpoint);
// Masters and moments of the same.
Status LoadCheckpoint(const Checkpoint& checkpoint, const std::string& dir);

}  // namespace dspark

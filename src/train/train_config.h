// What a training run is: one JSON file, every key with a default but those of the data.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/drafter_files.h"

namespace dspark {

struct TrainConfig {
  // Where from and where to.
  std::string target;             // model: GGUF or directory
  std::vector<std::string> data;  // JSONL of conversations, run through the target; or one target cache
  std::string cache_target;       // the target's name in the cache's manifest; empty: as `target`
  std::string out;                // checkpoints, log and curves go here

  // The drafter.
  std::string kind = "dspark";  // dflash, eagle3, mtp
  int layers = 2;
  int block_size = 7;
  std::vector<int> taps;           // empty: five spread over the target
  int mask_token = -1;             // -1: one that texts do not contain (mask_token.h)
  std::string markov = "vanilla";  // none, vanilla, gated, rnn
  int markov_rank = 64;
  bool confidence = true;
  int draft_vocab = 0;           // ids the drafter can draft, the data's most frequent; 0: all
  std::vector<int> init_layers;  // the target's layers its own start from, one each; empty: random

  // The recipe (drafters.md §3, §4, §13).
  int anchors = 512;        // of a sample at most
  double decay = 4;         // slot j weighs exp(-j / decay)
  std::string loss = "l1";  // what l1_share weighs: l1, or lk, minus the logarithm of the acceptance
  // Of a block's slots in that and in the cross-entropy: fixed, exp(-j / decay), or dpace, by the drafter's
  // own probabilities (dpace.h); the confidence and the denominators keep the fixed ones.
  std::string slot_weights = "fixed";
  int ttt_steps = 7;       // Eagle3, MTP: drafts in a row that are trained, and made in a round at most
  double ttt_decay = 0.8;  // draft k of them weighs ttt_decay^k
  double ce_share = 0.1, l1_share = 0.9, confidence_share = 1;
  int batch = 32;  // samples of an optimizer step
  int group = 8;   // samples whose losses are divided together
  int epochs = 1;
  int64_t steps = 0;  // ends here; 0: after the epochs
  double learning_rate = 6e-4;
  double warmup_share = 0.04;
  double clip = 1;
  double weight_decay = 0;
  int64_t seed = 42;       // of weights and anchors
  int64_t data_seed = 42;  // of the order of the data
  int max_length = 2048;   // tokens of a sample; longer ones are cut

  // The run.
  std::string precision = "bf16";  // of matrix products: bf16, f32
  int threads = 0;                 // 0: all cores
  int64_t checkpoint_every = 100;  // steps; one more at the end
  int checkpoints_kept = 2;
};

// What a run of a kind is when nothing else is said.
TrainConfig DefaultsOf(const std::string& kind);

// Error: a key that is not known or does nothing for the kind, a value of another type or out of range; one
// line with `path` and the key.
Result<TrainConfig> ParseTrainConfig(const nlohmann::json& json, const std::string& path);

// All keys that do something for the kind, as ParseTrainConfig takes them.
nlohmann::ordered_json TrainConfigJson(const TrainConfig& config);

// The drafter of this configuration for a target: Qwen3's layers in the target's sizes. Error: taps, mask or
// layers that the target does not have.
Result<DrafterConfig> DrafterFor(const TrainConfig& config, const ModelConfig& target);

}  // namespace dspark

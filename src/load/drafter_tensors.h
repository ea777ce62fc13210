// The tensors of a drafter: their names in Hugging Face checkpoints and their shapes. What reads a drafter
// and what writes one agree here.
#pragma once

#include <string>
#include <string_view>

#include "core/result.h"
#include "load/drafter_files.h"
#include "load/mapped_weights.h"

namespace dspark {

// The name of drafter_files.h for a checkpoint's: DeepSpec's "layers.0.mlp.up_proj.weight", also with
// "model." before it or SpecForge's "midlayer." for "layers.0.", is "blk.0.ffn_up.weight"; empty for a name
// that no drafter has.
std::string DrafterTensorName(std::string_view hf_name);

// The other way round, in DeepSpec's spelling. Every name of DrafterShapes has one; empty for others.
std::string DeepSpecTensorName(std::string_view name);

// V3's spelling of an MTP drafter's, which lie in the layer behind the target's last: its names for
// checkpoint names ("model.layers.30.enorm.weight" is "nextn.enorm.weight"), empty for others.
std::string MtpTensorName(std::string_view hf_name, int target_layers);

// The name in a checkpoint of the drafter's kind: DeepSpec's or V3's.
std::string CheckpointTensorName(const DrafterConfig& config, std::string_view name);

// Exactly the tensors that a drafter of this configuration has.
TensorShapes DrafterShapes(const DrafterConfig& config);

// How many drafts Eagle3 and MTP make at most when their file does not say: what the paper trains for.
inline constexpr int kDefaultDrafts = 7;

// The last steps for every form of file: what only the tensors say (ids of a reduced vocabulary, norms on the
// heads, an embedding and a head of its own) enters the configuration, and all of it is checked. d2t holds
// absolute ids, or differences to the row number (`offsets`: SpecForge's way).
struct DrafterParts {
  std::string path;    // of the drafter
  std::string config;  // where its keys stand, for messages
  std::vector<MappedFile> files;
  MappedWeights::Tensors tensors;
  bool offsets = false;
};
Result<DrafterFiles> AssembleDrafter(DrafterConfig config, DrafterParts parts);

// What the two kinds of file have in common once read: sizes, taps, ids and heads are in range and fit each
// other. Error: one line that begins with `path`.
Status CheckDrafterConfig(const DrafterConfig& config, const std::string& path);

// That exactly the tensors of DrafterShapes are there, each of its shape.
Status CheckDrafterTensors(const DrafterConfig& config, const MappedWeights& weights);

}  // namespace dspark

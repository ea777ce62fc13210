// The safetensors of a Hugging Face directory under llama.cpp's tensor names.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "load/mapped_weights.h"
#include "load/model_config.h"

namespace dspark {

// "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight"; empty for a name that no family of
// load/family.h has.
std::string LlamaCppName(std::string_view hf_name);
// The other way round.
std::string HuggingFaceName(std::string_view llama_cpp_name);

// The paths of a directory's weights: model.safetensors, or the shards that model.safetensors.index.json
// lists, which must be there. Error: one line with the file and the cure.
Result<std::vector<std::string>> HfWeightFiles(const std::string& dir);

// How the tensors of a directory are called here. `name` gives llama.cpp's name for the file's, kLeftOut for
// a tensor that is not wanted, an empty string for one that must not be there.
inline constexpr std::string_view kLeftOut = "-";
struct HfNaming {
  std::function<std::string(std::string_view)> name;
  std::string_view kind;  // what the files hold, for messages: "dense decoder"
};

// The one tensor of whole numbers: ids of a reduced vocabulary (drafters).
inline constexpr std::string_view kDraftIds = "d2t";

struct HfTensors {
  std::vector<MappedFile> files;
  MappedWeights::Tensors tensors;
};

// Maps all weight files of a directory. Weights are F32, F16 or BF16. Error: one line with file, tensor and
// cure.
Result<HfTensors> MapHfTensors(const std::string& dir, const HfNaming& naming);

// Opens model.safetensors, or the shards that model.safetensors.index.json lists. Weights are F32, F16 or
// BF16. A tied model's lm_head, where the file has one, is left out. Error: one line with file, tensor and
// cure.
Result<std::unique_ptr<MappedWeights>> OpenHfWeights(const std::string& dir, const ModelConfig& config);

}  // namespace dspark

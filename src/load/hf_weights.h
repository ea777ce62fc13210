// The safetensors of a Hugging Face directory under llama.cpp's tensor names.
#pragma once

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

// The paths of a directory's weights: model.safetensors, or the shards that model.safetensors.index.json
// lists, which must be there. Error: one line with the file and the cure.
Result<std::vector<std::string>> HfWeightFiles(const std::string& dir);

// Opens model.safetensors, or the shards that model.safetensors.index.json lists. Weights are F32, F16 or
// BF16. A tied model's lm_head, where the file has one, is left out. Error: one line with file, tensor and
// cure.
Result<std::unique_ptr<MappedWeights>> OpenHfWeights(const std::string& dir, const ModelConfig& config);

}  // namespace dspark

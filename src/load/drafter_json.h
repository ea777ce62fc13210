// config.json of drafters that we write.
#pragma once

#include <nlohmann/json.hpp>

#include "core/tensor_type.h"
#include "load/drafter_files.h"

namespace dspark {

// DeepSpec's keys (drafters.md §12.2), z-lab's where slots predict their own token, V3's of MTP; `type`: of
// the tensors.
nlohmann::ordered_json DeepSpecConfig(const DrafterConfig& config, TensorType type);

}  // namespace dspark

// What `dspark calibrate` found, kept in the drafter's own files.
#pragma once

#include <span>
#include <string>

#include "core/result.h"

namespace dspark {

// Sets the temperatures of the confidence head (DrafterConfig::confidence_temperatures) of the drafter at
// `path`: key confidence_temperatures of a directory's config.json, or metadata key
// <architecture>.confidence_temperatures of a GGUF. Other keys and all tensors stay as they are; the file is
// replaced whole or not at all. An empty span takes the key out. Error: one line.
Status StoreTemperatures(const std::string& path, std::span<const float> temperatures);

}  // namespace dspark

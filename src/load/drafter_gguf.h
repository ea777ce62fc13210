// A GGUF file as a drafter.
#pragma once

#include <string>

#include "core/result.h"
#include "load/drafter_files.h"

namespace dspark {

// Error: as OpenDrafter.
Result<DrafterFiles> OpenDrafterGguf(const std::string& path);

// Whether the file's architecture is a drafter's.
bool GgufLooksLikeDrafter(const std::string& path);

}  // namespace dspark

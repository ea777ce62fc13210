// A Hugging Face directory as a drafter.
#pragma once

#include <string>

#include "core/result.h"
#include "load/drafter_files.h"

namespace dspark {

// Error: as OpenDrafter.
Result<DrafterFiles> OpenDrafterDirectory(const std::string& dir);

// Whether config.json names a drafter that is known, runnable or not.
bool DirectoryLooksLikeDrafter(const std::string& dir);

}  // namespace dspark

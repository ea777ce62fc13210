// What to say of a directory that should hold a model or a drafter and does not.
#pragma once

#include <string>
#include <string_view>

#include "core/result.h"

namespace dspark {

// The error of a directory without config.json; `what` was expected there, "model" or "drafter". Names a GGUF
// file that lies in it, which was perhaps meant.
Error NoConfigError(const std::string& dir, std::string_view what);

}  // namespace dspark

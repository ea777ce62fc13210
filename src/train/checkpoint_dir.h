// Which checkpoints a training run has in its directory (checkpoint.h).
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace dspark {

// The checkpoint that a run in `dir` goes on from: DIR/step_latest, or, where that is lost or leads nowhere,
// the whole DIR/step_N of the highest N. Empty when there is no step_N at all. Error: there are some, but
// none is whole.
Result<std::string> FindCheckpoint(const std::string& dir);

// Keeps DIR/step_`newest` and, of the others, the `kept` - 1 with the highest numbers.
void RemoveOldCheckpoints(const std::string& dir, int64_t newest, int kept);

}  // namespace dspark

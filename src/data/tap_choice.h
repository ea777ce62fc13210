// Which layers of the target a drafter reads.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// Five layers spread over a target of `layers`: round(1 + i (layers - 4) / 4), as DFlash chooses them
// (drafters.md §5.5). With less than 8 layers, as many as there are before the last one, at most five.
std::vector<int> AutoTaps(int layers);

// "auto", or ids with commas between, ascending: outputs of layers 0 … layers - 2, -1 the embedding, `layers`
// the final norm's output. Error: anything else; a drafter that read the last layer's output would not load.
Result<std::vector<int>> ParseTaps(const std::string& text, int layers);

}  // namespace dspark

// Weights of a block's slots by what the drafter already can (D-PACE, arXiv 2605.18810).
#pragma once

#include <cstdint>
#include <vector>

namespace dspark {

// Slot j weighs Σ_{m >= j} Π_{i <= m} (1/2 + 1/2 p_i), p_i the probability of slot i's token: by how much the
// drafts that a block is good for hang on it, the smoothing by 1/2 so that a slot behind a hopeless one still
// learns. places [N]: of each slot in its block, 0 first, all of a block side by side; p [N]. Returns [N],
// from 2^-j to the block's length.
std::vector<float> DpaceWeights(const std::vector<int64_t>& places, const std::vector<float>& p);

}  // namespace dspark

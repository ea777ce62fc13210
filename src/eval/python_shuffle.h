// CPython's random.Random(seed).shuffle, so that subsamples of a prompt set are the ones DeepSpec takes.
#pragma once

#include <cstdint>
#include <vector>

namespace dspark {

// The order in which CPython 3 leaves list(range(n)) after random.Random(seed).shuffle: MT19937 seeded by
// init_by_array, and Fisher-Yates from the end with indices from getrandbits.
std::vector<int> PythonShuffle(int n, uint64_t seed);

}  // namespace dspark

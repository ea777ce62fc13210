// What tells one set of training data from another.
#pragma once

#include <string>

#include "data/train_sample.h"

namespace dspark {

// Samples that are read at most, so that a large cache is not read as a whole at every start.
inline constexpr int64_t kDigestSamples = 10000;

// SHA-256, in hexadecimal digits, over the number of samples and ids and loss masks of up to `samples` of
// them, spread evenly. A change in none of those stays unseen. Error: the source's.
Result<std::string> DataDigest(SampleSource& source, int64_t samples = kDigestSamples);

}  // namespace dspark

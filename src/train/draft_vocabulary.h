// The ids of a reduced draft vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "data/train_sample.h"
#include "train/process_group.h"

namespace dspark {

// The `size` ids that are supervised most often in `samples` samples spread over the source, ascending; where
// too few occur, the lowest ids of the rest (byte-pair vocabularies begin with their most frequent). The
// processes of `group` read a share each and choose the same.
Result<std::vector<int32_t>> ChooseDraftVocabulary(SampleSource& source, int size, int64_t samples,
                                                   ProcessGroup& group);

}  // namespace dspark

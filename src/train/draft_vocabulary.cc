#include "train/draft_vocabulary.h"

#include <algorithm>
#include <numeric>

namespace dspark {

Result<std::vector<int32_t>> ChooseDraftVocabulary(SampleSource& source, int size, int64_t samples) {
  std::vector<int64_t> counts(size_t(source.shape().vocab));
  const int64_t n = std::min(samples, source.size());
  for (int64_t i = 0; i < n; ++i) {
    DSPARK_ASSIGN_OR_RETURN(const auto read, source.ReadTokens({i * source.size() / n}));
    for (size_t t = 0; t < read[0].ids.size(); ++t)
      if (read[0].loss_mask[t]) ++counts[size_t(read[0].ids[t])];
  }
  std::vector<int32_t> ids(counts.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, std::ranges::greater(), [&](int32_t id) { return counts[size_t(id)]; });
  ids.resize(std::min(ids.size(), size_t(size)));
  std::ranges::sort(ids);
  return ids;
}

}  // namespace dspark

#include "train/data_digest.h"

#include <algorithm>
#include <span>

#include "core/sha256.h"

namespace dspark {
namespace {

template <class T>
std::string DigestOf(const std::vector<T>& values) {
  return Sha256Hex({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)});
}

}  // namespace

Result<std::string> DataDigest(SampleSource& source, int64_t samples) {
  const int64_t n = std::min(samples, source.size());
  std::string digests = std::to_string(source.size());
  for (int64_t i = 0; i < n; ++i) {
    DSPARK_ASSIGN_OR_RETURN(const auto read, source.ReadTokens({i * source.size() / n}));
    digests += DigestOf(read[0].ids) + DigestOf(read[0].loss_mask);
  }
  return Sha256Hex({reinterpret_cast<const uint8_t*>(digests.data()), digests.size()});
}

}  // namespace dspark

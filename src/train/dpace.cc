#include "train/dpace.h"

#include <cstddef>

namespace dspark {

std::vector<float> DpaceWeights(const std::vector<int64_t>& places, const std::vector<float>& p) {
  std::vector<float> weights(places.size());
  float reached = 1;  // Π up to here
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] == 0) reached = 1;
    weights[i] = reached *= 0.5f + 0.5f * p[i];
  }
  for (size_t i = places.size(); i-- > 1;) {
    if (places[i] > 0) weights[i - 1] += weights[i];
  }
  return weights;
}

}  // namespace dspark

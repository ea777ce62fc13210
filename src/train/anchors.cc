#include "train/anchors.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"

namespace dspark {

std::vector<int> AnchorCandidates(std::span<const uint8_t> loss_mask) {
  std::vector<int> candidates;
  for (size_t a = 0; a + 1 < loss_mask.size(); ++a) {
    if (loss_mask[a] && loss_mask[a + 1]) candidates.push_back(int(a));
  }
  return candidates;
}

std::vector<int> SampleAnchors(std::span<const uint8_t> loss_mask, std::span<const float> keys, int most) {
  DSPARK_CHECK_LE(loss_mask.size(), keys.size() + 1);
  std::vector<int> anchors = AnchorCandidates(loss_mask);
  if (int(anchors.size()) <= most) return anchors;
  std::ranges::stable_sort(anchors, {}, [&](int a) { return keys[size_t(a)]; });
  anchors.resize(size_t(most));
  std::ranges::sort(anchors);
  return anchors;
}

std::vector<float> AnchorKeys(uint64_t seed, int64_t epoch, int64_t sample, size_t length) {
  std::vector<float> keys(length > 0 ? length - 1 : 0);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto bits = Philox4x32({uint32_t(i), uint32_t(epoch), uint32_t(sample), uint32_t(sample >> 32)},
                                 {uint32_t(seed), uint32_t(seed >> 32)});
    keys[i] = float(bits[0] >> 8) * 0x1p-24f;
  }
  return keys;
}

double BlockSlots::WeightSum() const { return std::accumulate(weights.begin(), weights.end(), 0.0); }

BlockSlots MakeBlockSlots(std::span<const int32_t> ids, std::span<const uint8_t> loss_mask,
                          std::span<const int> anchors, int gamma, float decay) {
  BlockSlots slots{.blocks = int(anchors.size()),
                   .gamma = gamma,
                   .anchors = {anchors.begin(), anchors.end()},
                   .labels = {},
                   .previous = {},
                   .valid = {},
                   .weights = {}};
  const int length = int(ids.size());
  for (const int anchor : anchors) {
    DSPARK_CHECK_LT(anchor + 1, length);
    bool valid = true;
    int32_t previous = ids[size_t(anchor)];
    for (int j = 0; j < gamma; ++j) {
      const int next = anchor + 1 + j;
      valid = valid && next < length && loss_mask[size_t(next)];
      const int32_t label = ids[size_t(std::min(next, length - 1))];
      slots.labels.push_back(label);
      slots.previous.push_back(previous);
      slots.valid.push_back(valid);
      slots.weights.push_back(valid ? std::exp(-float(j) / decay) : 0.0f);
      previous = label;
    }
  }
  return slots;
}

}  // namespace dspark

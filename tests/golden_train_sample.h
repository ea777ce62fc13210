// The samples that the golden training data begin with.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "data/train_sample.h"
#include "golden_tensors.h"

namespace dspark::test {

// Sample `name` (main, tail, few, none; zero: none without a supervised token) of train_samples.safetensors,
// with the outputs of layers `taps`.
inline TrainSample GoldenTrainSample(const GoldenTensors& samples, const std::string& name,
                                     const std::vector<int>& taps) {
  const std::string stored = name == "zero" ? "none" : name;
  TrainSample s;
  s.ids = samples.Ints(stored + ".input_ids");
  const auto mask = samples.Find(stored + ".loss_mask").bytes;
  s.loss_mask.assign(mask.begin(), mask.end());
  if (name == "zero") std::ranges::fill(s.loss_mask, 0);
  s.last_hidden = samples.Floats(stored + ".last_hidden");
  const auto out = samples.Floats(stored + ".layer_out");
  const std::vector<int> layers = {0, 1, 2, 3, 5, 6};  // side by side in layer_out
  const size_t d = s.last_hidden.size() / s.ids.size();
  for (size_t t = 0; t < s.ids.size(); ++t) {
    for (const int tap : taps) {
      const size_t place = size_t(std::ranges::find(layers, tap) - layers.begin());
      const auto from = out.begin() + long((t * layers.size() + place) * d);
      s.taps.insert(s.taps.end(), from, from + long(d));
    }
  }
  return s;
}

}  // namespace dspark::test

// Samples that a test gives one by one.
#pragma once

#include <vector>

#include "core/rng.h"
#include "data/train_sample.h"
#include "load/model_config.h"

namespace dspark::test {

// Ids and masks as added; hidden states are noise that depends on position and id alone.
class FixedSource : public SampleSource {
 public:
  FixedSource(const ModelConfig& target, std::vector<int> taps) {
    shape_ = {std::move(taps), target.d_model, target.vocab, "fixed"};
  }
  void Add(std::vector<int32_t> ids, std::vector<uint8_t> loss_mask) {
    samples_.push_back({int64_t(samples_.size()), std::move(ids), std::move(loss_mask), {}, {}});
  }
  // `length` different ids from `first` on, supervised from position 2.
  void AddCounting(int length, int32_t first) {
    std::vector<int32_t> ids;
    for (int i = 0; i < length; ++i) ids.push_back(first + i);
    std::vector<uint8_t> mask(ids.size(), 1);
    mask[0] = mask[1] = 0;
    Add(std::move(ids), std::move(mask));
  }
  const TrainSample& sample(int64_t index) const { return samples_[size_t(index)]; }

  const SampleShape& shape() const override { return shape_; }
  int64_t size() const override { return int64_t(samples_.size()); }
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> read;
    for (const int64_t index : indices) {
      TrainSample s = sample(index);
      const size_t d = size_t(shape_.d_model);
      s.taps = Noise(s, d * shape_.tap_layers.size(), 1);
      s.last_hidden = Noise(s, d, 8);
      read.push_back(std::move(s));
    }
    return read;
  }
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> read;
    for (const int64_t index : indices) read.push_back(sample(index));
    return read;
  }

 private:
  static std::vector<float> Noise(const TrainSample& s, size_t width, float size) {
    std::vector<float> rows;
    for (size_t t = 0; t < s.ids.size(); ++t) {
      const uint64_t stream = (t << 20 | uint64_t(s.ids[t])) << 20;
      for (size_t i = 0; i < width; ++i)
        rows.push_back((UniformFloat(uint64_t(size), stream | i, Purpose::kTest) * 2 - 1) * size);
    }
    return rows;
  }

  SampleShape shape_;
  std::vector<TrainSample> samples_;
};

}  // namespace dspark::test

// Samples that a small drafter learns within some steps, and a configuration for it.
#pragma once

#include <cmath>
#include <vector>

#include "data/train_sample.h"
#include "load/model_files.h"
#include "train/parameters.h"
#include "train/train_config.h"

namespace dspark::test {

// A text in which every token follows from the one before, and a target that knows it.
class CountingSource : public SampleSource {
 public:
  CountingSource(const ModelFiles& target, int64_t size) : size_(size) {
    shape_ = {.tap_layers = {0, 1, 2},
              .d_model = target.config.d_model,
              .vocab = target.config.vocab,
              .target_name = "counting"};
    const torch::Tensor table = TensorFrom(*target.weights->Find("token_embd.weight"));
    table_.assign(table.data_ptr<float>(), table.data_ptr<float>() + table.numel());
  }
  void SetTaps(const std::vector<int>& taps) { shape_.tap_layers = taps; }
  const SampleShape& shape() const override { return shape_; }
  int64_t size() const override { return size_; }
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    for (const int64_t index : indices) samples.push_back(Make(index));
    return samples;
  }
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    for (const int64_t index : indices) {
      const TrainSample whole = Make(index);
      samples.push_back({index, whole.ids, whole.loss_mask, {}, {}});
    }
    return samples;
  }

 private:
  static int32_t Next(int32_t id) { return id * 5 % 13 + 3; }
  TrainSample Make(int64_t index) const {
    TrainSample s;
    s.id = index;
    const int length = 24 + int(index % 5) * 7;
    s.ids = {int32_t(3 + index % 13)};
    while (int(s.ids.size()) < length) s.ids.push_back(Next(s.ids.back()));
    s.loss_mask.assign(size_t(length), 1);
    for (int t = 0; t < 6; ++t) s.loss_mask[size_t(t)] = 0;
    for (const int32_t id : s.ids) {
      for (int tap = 0; tap < int(shape_.tap_layers.size()); ++tap) AppendRow(id, 1.0f + float(tap), &s.taps);
      AppendRow(Next(id), 40.0f, &s.last_hidden);
    }
    return s;
  }
  // The embedding's row at a length of `scale`.
  void AppendRow(int32_t id, float scale, std::vector<float>* out) const {
    const float* row = &table_[size_t(id) * size_t(shape_.d_model)];
    float squares = 0;
    for (int i = 0; i < shape_.d_model; ++i) squares += row[i] * row[i];
    for (int i = 0; i < shape_.d_model; ++i) out->push_back(row[i] * scale / std::sqrt(squares));
  }

  SampleShape shape_;
  int64_t size_;
  std::vector<float> table_;
};

inline TrainConfig CountingConfig() {
  TrainConfig config;
  config.taps = {0, 1, 2};
  config.markov_rank = 16;
  config.block_size = 4;
  config.anchors = 8;
  config.batch = 8;
  config.group = 4;
  config.epochs = 100;
  config.steps = 30;
  config.learning_rate = 1e-2;
  config.ce_share = 1;
  config.threads = 2;
  return config;
}

}  // namespace dspark::test

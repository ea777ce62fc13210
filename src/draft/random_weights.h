// Seeded random weights in memory, made when they are asked for: models and drafters for benchmarks and
// tests that need no trained ones.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "load/drafter_tensors.h"
#include "load/mapped_weights.h"
#include "load/model_files.h"

namespace dspark {

// Matrices of variance 1 / columns (embedding and head: 9 / columns), vectors around 1. F32.
class RandomWeights : public TensorSource {
 public:
  RandomWeights(const TensorShapes& shapes, uint64_t seed) {
    for (const auto& [name, shape] : shapes)
      tensors_[name].view = {.name = name, .type = TensorType::kF32, .shape = shape, .bytes = {}};
    for (auto& [name, tensor] : tensors_) tensor.seed = ++seed * 0x9e3779b97f4a7c15;
  }

  const TensorView* Find(std::string_view name) const override {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return nullptr;
    if (it->second.values.empty()) Make(it->second);
    return &it->second.view;
  }
  void Release(const TensorView& view) const override { tensors_.at(view.name).values = {}; }
  const std::string& path() const override { return path_; }

 private:
  struct Tensor {
    TensorView view;
    uint64_t seed = 0;
    std::vector<float> values;
  };
  static void Make(Tensor& t) {
    const bool vector = t.view.shape.size() == 1;
    const bool vocabulary = t.view.name == "token_embd.weight" || t.view.name == "output.weight";
    const float amplitude =
        vector ? 0.5f : (vocabulary ? 3.0f : 1.0f) * std::sqrt(3.0f / float(t.view.shape[1]));
    t.values.resize(size_t(t.view.shape[0]) * size_t(vector ? 1 : t.view.shape[1]));
    uint64_t x = t.seed;
    for (float& value : t.values) {  // xorshift64*
      x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
      const float u = float((x * 0x2545f4914f6cdd1d) >> 40) * 0x1p-24f;
      value = (vector ? 1.0f : 0.0f) + (2 * u - 1) * amplitude;
    }
    t.view.bytes = {reinterpret_cast<const uint8_t*>(t.values.data()), t.values.size() * sizeof(float)};
  }

  std::string path_ = "random weights";
  mutable std::map<std::string, Tensor, std::less<>> tensors_;
};

inline ModelFiles RandomModel(const ModelConfig& config, uint64_t seed) {
  TensorShapes shapes = LayerShapes(config);
  shapes["output_norm.weight"] = {config.d_model};
  shapes["token_embd.weight"] = {config.vocab, config.d_model};
  if (!config.tied_embeddings) shapes["output.weight"] = {config.vocab, config.d_model};
  ModelFiles files;
  files.config = config;
  files.weights = std::make_unique<RandomWeights>(shapes, seed);
  return files;
}

inline DrafterFiles RandomDrafter(const DrafterConfig& config, uint64_t seed) {
  return {.path = "random drafter",
          .config = config,
          .weights = std::make_unique<RandomWeights>(DrafterShapes(config), seed)};
}

}  // namespace dspark

// The tensors of one or more mapped files under llama.cpp's names.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "load/model_config.h"
#include "load/tensor_source.h"

namespace dspark {

class MappedWeights : public TensorSource {
 public:
  using Tensors = std::map<std::string, TensorView, std::less<>>;  // by llama.cpp's name

  // Every tensor's bytes lie in one of `files`.
  MappedWeights(std::string path, std::vector<MappedFile> files, Tensors tensors)
      : path_(std::move(path)), files_(std::move(files)), tensors_(std::move(tensors)) {}

  const TensorView* Find(std::string_view name) const override {
    const auto it = tensors_.find(name);
    return it == tensors_.end() ? nullptr : &it->second;
  }
  void Release(const TensorView& tensor) const override;
  const std::string& path() const override { return path_; }
  const Tensors& tensors() const { return tensors_; }

 private:
  std::string path_;
  std::vector<MappedFile> files_;
  Tensors tensors_;
};

using TensorShapes = std::map<std::string, std::vector<int64_t>>;  // by llama.cpp's name

// The tensors blk.i.* of a dense decoder's layers.
TensorShapes LayerShapes(const ModelConfig& config);

// Each layer has nine tensors or more: a claim of more layers than tensors is refused before it is listed.
Status CheckLayerCount(int layers, const MappedWeights& weights);

// Checks that exactly these tensors are there (and rope_freqs.weight, which the configuration has taken in),
// each of its shape: a missing one cannot be run, and one too many (a bias, an expert) would be left out
// silently. `kind` says for messages what the file is: "dense llama model".
Status CheckShapes(const TensorShapes& expected, const MappedWeights& weights, std::string_view kind);

// The same for a whole dense decoder of this configuration.
Status CheckTensors(const ModelConfig& config, const MappedWeights& weights);

}  // namespace dspark

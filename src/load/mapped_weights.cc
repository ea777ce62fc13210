#include "load/mapped_weights.h"

#include <fmt/ranges.h>

#include "load/printable.h"

namespace dspark {

TensorShapes LayerShapes(const ModelConfig& c) {
  const int64_t d = c.d_model, q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  std::vector<std::pair<const char*, std::vector<int64_t>>> block = {
      {"attn_norm", {d}},         {"attn_q", {q, d}},       {"attn_k", {kv, d}},
      {"attn_v", {kv, d}},        {"attn_output", {d, q}},  {"ffn_norm", {d}},
      {"ffn_gate", {c.d_ffn, d}}, {"ffn_up", {c.d_ffn, d}}, {"ffn_down", {d, c.d_ffn}}};
  if (c.qk_norm) block.insert(block.end(), {{"attn_q_norm", {c.head_dim}}, {"attn_k_norm", {c.head_dim}}});
  TensorShapes shapes;
  for (int layer = 0; layer < c.layers; ++layer) {
    for (const auto& [name, shape] : block) shapes[fmt::format("blk.{}.{}.weight", layer, name)] = shape;
  }
  return shapes;
}

void MappedWeights::Release(const TensorView& tensor) const {
  for (const MappedFile& file : files_) {
    const auto bytes = file.bytes();
    if (tensor.bytes.data() < bytes.data() || tensor.bytes.data() >= bytes.data() + bytes.size()) continue;
    file.Release(size_t(tensor.bytes.data() - bytes.data()), tensor.bytes.size());
  }
}

Status CheckLayerCount(int layers, const MappedWeights& weights) {
  if (size_t(layers) <= weights.tensors().size()) return {};
  return MakeError("{}: {} layers but only {} tensors; the file is not a complete model", weights.path(),
                   layers, weights.tensors().size());
}

Status CheckShapes(const TensorShapes& expected, const MappedWeights& weights, std::string_view kind) {
  for (const auto& [name, shape] : expected) {
    const TensorView* tensor = weights.Find(name);
    if (!tensor)
      return MakeError("{}: tensor {} is missing; the file is not a complete model", weights.path(), name);
    if (tensor->shape != shape) {
      return MakeError("{}: tensor {} has shape [{}], the configuration asks for [{}]; the file is damaged",
                       weights.path(), Printable(tensor->name), fmt::join(tensor->shape, ", "),
                       fmt::join(shape, ", "));
    }
    if (!InfoOf(tensor->type).dequantize) {
      return MakeError("{}: tensor {} holds {} values, not weights; convert the model again", weights.path(),
                       Printable(tensor->name), InfoOf(tensor->type).name);
    }
  }
  for (const auto& [name, tensor] : weights.tensors()) {
    if (expected.contains(name) || name == "rope_freqs.weight") continue;
    return MakeError("{}: tensor {} does not belong to a {}; this variant is not supported", weights.path(),
                     Printable(tensor.name), kind);
  }
  return {};
}

Status CheckTensors(const ModelConfig& config, const MappedWeights& weights) {
  DSPARK_RETURN_IF_ERROR(CheckLayerCount(config.layers, weights));
  TensorShapes expected = LayerShapes(config);
  expected["token_embd.weight"] = {config.vocab, config.d_model};
  expected["output_norm.weight"] = {config.d_model};
  if (!config.tied_embeddings) expected["output.weight"] = {config.vocab, config.d_model};
  return CheckShapes(expected, weights, fmt::format("dense {} model", config.architecture));
}

}  // namespace dspark

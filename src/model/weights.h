// A dense transformer's weights, packed for the kernels.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "load/model_files.h"
#include "model/weight_packer.h"

namespace dspark {

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  // [d]
  std::vector<float> q_norm, k_norm;       // [hd]; empty where the family has none
  PackedMatrix wq;                         // [H * hd, d]
  PackedMatrix wk, wv;                     // [KV * hd, d]
  PackedMatrix wo;                         // [d, H * hd]
  PackedMatrix gate, up;                   // [d_ffn, d]
  PackedMatrix down;                       // [d, d_ffn]
};

// All matrices lie in `storage` in the order a pass reads them: one mapping in huge pages.
struct ModelWeights {
  Buffer<uint8_t> storage;
  PackedMatrix embedding;  // [V, d]
  PackedMatrix output;     // [V, d]; empty when tied: the head is the embedding
  std::vector<float> output_norm;
  std::vector<LayerWeights> layers;

  const PackedMatrix& head() const { return output.n() ? output : embedding; }
  size_t Bytes() const { return storage.Bytes(); }
};

// "f32", "bf16", "int8" or "int4" as a user asks for weights; nothing for any other name.
std::optional<WeightFormat> WeightFormatFromName(std::string_view name);

// Adds the tensors of layer `index` of a dense transformer; q, k and v read `qkv_columns` columns (d, in
// Eagle3 2d).
void AddLayerSlots(const ModelConfig& config, int index, int qkv_columns, LayerWeights* layer,
                   WeightSlots* slots);

// Bytes of PackWeights' storage, from sizes alone. Error: as PackWeights.
Result<size_t> PackedWeightBytes(const ModelFiles& files, std::optional<WeightFormat> asked = {});

// All weights of a target; formats and errors as PackSlots has them.
Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool,
                                 std::optional<WeightFormat> asked = {});

}  // namespace dspark

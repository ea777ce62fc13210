// A dense transformer's weights, packed for the kernels.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "load/model_files.h"

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

// Bytes of PackWeights' storage, from sizes alone. Error: as PackWeights.
Result<size_t> PackedWeightBytes(const ModelFiles& files, std::optional<WeightFormat> asked = {});

// Repacks every tensor on all workers and gives the file's pages back as it goes, so that the weights are
// resident once.
//
// `asked` quantises (or widens) the matrices; without it each keeps its file's precision. Norms are fp32
// always. Three exceptions: a matrix whose rows are no whole blocks of 32 keeps the file's type when int8 or
// int4 is asked for; the embedding and the head are int8 when int4 is; a tensor of 4 bits stays as it is when
// int4 is.
//
// Error: a missing tensor, one whose shape does not fit the config, one that holds NaN or infinity, or int4
// asked of a tensor that the file already rounded to 8 bits: file, tensor, what to do.
Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool,
                                 std::optional<WeightFormat> asked = {});

}  // namespace dspark

// A dense transformer's weights, packed for the kernels.
#pragma once

#include <vector>

#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "load/model_files.h"

namespace dspark {

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  // [d]
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

// Repacks every tensor on all workers and gives the file's pages back as it goes, so that the weights are
// resident once. Error: a missing tensor, or one whose shape does not fit the config: file, tensor, shapes.
Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool);

}  // namespace dspark

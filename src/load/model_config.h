// What a model is, in the words of its own file: sizes, norms, rope. Read once from GGUF metadata or config.json and
// checked there; every later layer trusts it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dspark {

// Llama 3's frequency scaling (targets.md §3): long wavelengths are divided by `factor`, short ones kept.
struct RopeScaling {
  float factor = 8, low = 1, high = 4;
  int original_context = 8192;
};

struct ModelConfig {
  std::string architecture;  // "llama" (SmolLM2 too)
  std::string name;          // for people
  int layers = 0;            // L
  int d_model = 0;           // d
  int heads = 0;             // H query heads
  int kv_heads = 0;          // KV heads; H is a multiple
  int head_dim = 0;          // hd, even
  int d_ffn = 0;
  int vocab = 0;             // V
  int max_context = 0;       // positions the model was made for
  float rms_eps = 1e-5f;
  float rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  bool rope_interleaved = false;  // q/k rows stored for pairs (2i, 2i+1) instead of (i, i + hd/2)
  bool tied_embeddings = false;   // no output matrix: the head is the embedding
  std::vector<int32_t> eos;       // every token that ends a reply
  std::optional<int32_t> bos;
};

}  // namespace dspark

// What a model is, in the words of its own file: sizes, norms, rope. Read once from GGUF metadata or
// config.json and checked there; every later layer trusts it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// Llama 3's frequency scaling: long wavelengths are divided by `factor`, short ones kept.
struct RopeScaling {
  float factor = 8, low = 1, high = 4;
  int original_context = 8192;
};

struct ModelConfig {
  std::string architecture;  // "llama" (SmolLM2 too), "qwen3": Family::gguf
  std::string name;          // for people
  int layers = 0;            // L
  int d_model = 0;           // d
  int heads = 0;             // H query heads
  int kv_heads = 0;          // KV heads; H is a multiple
  int head_dim = 0;          // hd, even
  int d_ffn = 0;
  int vocab = 0;        // V
  int max_context = 0;  // positions the model was made for
  float rms_eps = 1e-5f;
  float rope_theta = 10000;
  // [head_dim / 2], or empty for plain rope: pair i turns with frequency theta^(-2i/hd) / divisor[i]. This is
  // all a model needs to know of rope scaling: GGUF's rope_freqs.weight, or worked out from a config's
  // rope_scaling.
  std::vector<float> rope_freq_divisors;
  bool rope_interleaved = false;  // q/k rows stored for pairs (2i, 2i+1) instead of (i, i + hd/2)
  bool qk_norm = false;           // every head of q and k is RMS-normalised before rope
  bool tied_embeddings = false;   // no output matrix: the head is the embedding
  std::vector<int32_t> eos;       // every token that ends a reply
  std::optional<int32_t> bos;
  bool add_bos = false;  // raw prompts begin with bos (chat templates write it themselves)
};

// Sizes up to here leave room for products with small factors in int; no model comes near.
inline constexpr int kMaxModelSize = 1 << 24;

// What later layers rely on: sizes positive and small enough for int arithmetic, heads % kv_heads == 0,
// head_dim even, eps and theta in range, divisors positive and finite, eos and bos inside the vocabulary.
// Error: one line that begins with `path`.
Status CheckConfig(const ModelConfig& config, const std::string& path);

// Divisors of the pairs' frequencies under Llama 3.1's scaling (transformers' rope type "llama3"), [head_dim
// / 2].
std::vector<float> RopeFreqDivisors(const RopeScaling& scaling, float theta, int head_dim);

}  // namespace dspark

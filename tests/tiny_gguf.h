// A tiny Llama (or Qwen3) with seeded random weights and a working byte-level tokenizer (ChatML), as a GGUF
// file: a whole model for tests that need no real one.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "core/tensor_type.h"
#include "gguf_builder.h"

namespace dspark::test {

struct TinyLlama {
  std::string_view architecture = "llama";  // or "qwen3": norms on the heads of q and k
  int layers = 2;
  int d_model = 64;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int d_ffn = 128;
  int max_context = 512;
  float rope_theta = 10000;
  TensorType matrices = TensorType::kQ4_1;  // all matrices of the layers
  TensorType embedding = TensorType::kQ8_0;
  bool tied = true;       // without: output.weight of `embedding`'s type
  bool tokenizer = true;  // without: no tokenizer keys, the vocabulary stays
  bool rope_freqs =
      false;  // rope_freqs.weight: divisor 1 for the fast half of the pairs, 8 for the slow half
};

inline constexpr char kTinyChatTemplate[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
    "endif %}";

struct TinyVocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;  // 3 control, 1 normal
};

// Ids 0..2: <|endoftext|>, <|im_start|>, <|im_end|>; 3..258: the bytes, in order; then one token per merge:
// 295 in all.
inline TinyVocabulary MakeTinyVocabulary() {
  TinyVocabulary v{{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, {}, {3, 3, 3}};
  int next = 0x100;  // GPT-2's alphabet: bytes that are no printable Latin-1 move to U+0100 and on
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string token;
    if (code < 0x80) {
      token += char(code);
    } else {
      token += {char(0xc0 | code >> 6), char(0x80 | (code & 63))};
    }
    v.tokens.push_back(token);
  }
  const std::vector<std::pair<const char*, const char*>> merges = {
      {"Ġ", "t"},   {"Ġ", "a"},  {"h", "e"}, {"i", "n"}, {"r", "e"},  {"o", "n"}, {"Ġt", "he"}, {"e", "r"},
      {"Ġ", "s"},   {"a", "t"},  {"Ġ", "w"}, {"Ġ", "o"}, {"e", "n"},  {"Ġ", "c"}, {"i", "t"},   {"i", "s"},
      {"a", "n"},   {"o", "r"},  {"e", "s"}, {"Ġ", "b"}, {"e", "d"},  {"Ġ", "f"}, {"in", "g"},  {"Ġ", "p"},
      {"o", "u"},   {"Ġa", "n"}, {"a", "l"}, {"a", "r"}, {"Ġt", "o"}, {"Ġ", "m"}, {"Ġo", "f"},  {"Ġ", "in"},
      {"Ġan", "d"}, {"Ġ", "d"},  {"l", "l"}, {"Ġ", "h"}};
  for (const auto& [left, right] : merges) {
    v.merges.push_back(std::string(left) + " " + right);
    v.tokens.push_back(std::string(left) + right);
  }
  v.types.resize(v.tokens.size(), 1);
  return v;
}

// Uniform values in ±amplitude; tensor number `stream` of the model `seed`.
inline std::vector<float> RandomValues(uint64_t seed, uint64_t stream, size_t n, float amplitude,
                                       float centre = 0) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    const float u = UniformFloat(seed, stream << 32 | i, Purpose::kTest);
    values[i] = centre + (2 * u - 1) * amplitude;
  }
  return values;
}

inline void AddTinyMetadata(const TinyLlama& m, const TinyVocabulary& vocabulary, GgufBuilder* b) {
  const auto key = [&](const char* name) { return std::string(m.architecture) + "." + name; };
  b->String("general.architecture", m.architecture);
  b->String("general.name", "tiny test model");
  b->U32(key("block_count"), uint32_t(m.layers));
  b->U32(key("context_length"), uint32_t(m.max_context));
  b->U32(key("embedding_length"), uint32_t(m.d_model));
  b->U32(key("feed_forward_length"), uint32_t(m.d_ffn));
  b->U32(key("attention.head_count"), uint32_t(m.heads));
  b->U32(key("attention.head_count_kv"), uint32_t(m.kv_heads));
  b->U32(key("attention.key_length"), uint32_t(m.head_dim));
  b->U32(key("rope.dimension_count"), uint32_t(m.head_dim));
  b->F32(key("rope.freq_base"), m.rope_theta);
  b->F32(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  b->U32(key("vocab_size"), uint32_t(vocabulary.tokens.size()));
  if (!m.tokenizer) return;
  b->String("tokenizer.ggml.model", "gpt2");
  b->String("tokenizer.ggml.pre", "smollm");
  b->Strings("tokenizer.ggml.tokens", vocabulary.tokens);
  b->I32s("tokenizer.ggml.token_type", vocabulary.types);
  b->Strings("tokenizer.ggml.merges", vocabulary.merges);
  b->U32("tokenizer.ggml.bos_token_id", 1);
  b->U32("tokenizer.ggml.eos_token_id", 2);
  b->Bool("tokenizer.ggml.add_bos_token", false);
  b->String("tokenizer.chat_template", kTinyChatTemplate);
}

inline GgufBuilder BuildTinyLlama(uint64_t seed, const TinyLlama& m = {}) {
  GgufBuilder b;
  const TinyVocabulary vocabulary = MakeTinyVocabulary();
  AddTinyMetadata(m, vocabulary, &b);
  uint64_t stream = 0;
  const auto norm = [&](const std::string& name, int n) {
    b.tensors.push_back({name,
                         uint32_t(TensorType::kF32),
                         {uint64_t(n)},
                         Quantize(TensorType::kF32, RandomValues(seed, ++stream, size_t(n), 0.5f, 1)),
                         {}});
  };
  const auto matrix = [&](const std::string& name, TensorType type, int out, int in, float gain) {
    // Variance gain² / in: activations keep their size through the layers, and the logits spread over a few
    // units.
    const float amplitude = gain * std::sqrt(3.0f / float(in));
    b.tensors.push_back({name,
                         uint32_t(type),
                         {uint64_t(in), uint64_t(out)},
                         Quantize(type, RandomValues(seed, ++stream, size_t(out) * size_t(in), amplitude)),
                         {}});
  };
  const int vocab = int(vocabulary.tokens.size()), q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim;
  matrix("token_embd.weight", m.embedding, vocab, m.d_model, 2.5f);
  for (int i = 0; i < m.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    norm(block + "attn_norm.weight", m.d_model);
    if (m.architecture == "qwen3") {
      norm(block + "attn_q_norm.weight", m.head_dim);
      norm(block + "attn_k_norm.weight", m.head_dim);
    }
    matrix(block + "attn_q.weight", m.matrices, q, m.d_model, 1);
    matrix(block + "attn_k.weight", m.matrices, kv, m.d_model, 1);
    matrix(block + "attn_v.weight", m.matrices, kv, m.d_model, 1);
    matrix(block + "attn_output.weight", m.matrices, m.d_model, q, 1);
    norm(block + "ffn_norm.weight", m.d_model);
    matrix(block + "ffn_gate.weight", m.matrices, m.d_ffn, m.d_model, 1.5f);
    matrix(block + "ffn_up.weight", m.matrices, m.d_ffn, m.d_model, 1.5f);
    matrix(block + "ffn_down.weight", m.matrices, m.d_model, m.d_ffn, 1);
  }
  norm("output_norm.weight", m.d_model);
  if (!m.tied) matrix("output.weight", m.embedding, vocab, m.d_model, 2.5f);
  if (m.rope_freqs) {
    std::vector<float> divisors(size_t(m.head_dim) / 2, 1.0f);
    std::fill(divisors.begin() + m.head_dim / 4, divisors.end(), 8.0f);
    b.tensors.push_back({"rope_freqs.weight",
                         uint32_t(TensorType::kF32),
                         {divisors.size()},
                         Quantize(TensorType::kF32, divisors),
                         {}});
  }
  return b;
}

inline std::string WriteFile(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

// Writes the model as `dir`/tiny.gguf and returns that path. Equal seeds and options give equal bytes.
inline std::string WriteTinyLlamaGguf(const std::string& dir, uint64_t seed, const TinyLlama& options = {}) {
  return WriteFile(dir + "/tiny.gguf", BuildTinyLlama(seed, options).Build());
}

}  // namespace dspark::test

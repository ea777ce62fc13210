// Small drafters with seeded random weights as Hugging Face directories and GGUF files of every form: tests
// change a key or a tensor before they write one.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gguf_builder.h"
#include "load/drafter_tensors.h"
#include "load/tensor_file_header.h"
#include "tiny_gguf.h"

namespace dspark::test {

// A drafter for targets of width 64 with 10 layers and 295 tokens, as TinyLlama{.layers = 10} makes one.
inline DrafterConfig TinyDrafterConfig(DrafterKind kind) {
  DrafterConfig c;
  c.kind = kind;
  c.form = "tiny";
  ModelConfig& b = c.backbone;
  b.architecture = "qwen3";
  b.layers = kind == DrafterKind::kBlock ? 2 : 1;
  b.d_model = 64;
  b.heads = 4;
  b.kv_heads = 2;
  b.head_dim = 16;
  b.d_ffn = 96;
  b.vocab = 295;
  b.max_context = 512;
  b.rms_eps = 1e-6f;
  b.rope_theta = 1e6f;
  b.qk_norm = true;
  c.target_width = 64;
  c.target_vocab = 295;
  c.target_layers = 10;
  c.block_size = 5;
  if (kind != DrafterKind::kMtp) c.taps = {1, 4, 6};
  if (kind == DrafterKind::kBlock) c.mask_token = 290;
  return c;
}

// The keys of config.json that the backbone takes, in transformers' older spelling.
inline nlohmann::json BackboneKeys(const DrafterConfig& c) {
  const ModelConfig& b = c.backbone;
  return {{"model_type", "qwen3"},
          {"num_hidden_layers", b.layers},
          {"hidden_size", b.d_model},
          {"intermediate_size", b.d_ffn},
          {"num_attention_heads", b.heads},
          {"num_key_value_heads", b.kv_heads},
          {"head_dim", b.head_dim},
          {"vocab_size", c.target_vocab},
          {"max_position_embeddings", b.max_context},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1e6}};
}

struct DrafterDirectory {
  nlohmann::json config;
  std::map<std::string, std::vector<int64_t>> shapes;  // by the checkpoint's name, F32
  std::vector<int64_t> d2t;                            // as it stands in the file; empty: none

  // The tensors that `c` asks for, under DeepSpec's names.
  void AddTensors(const DrafterConfig& c) {
    for (const auto& [name, shape] : DrafterShapes(c)) shapes[DeepSpecTensorName(name)] = shape;
  }
  void Rename(const std::string& from, const std::string& to) {
    auto node = shapes.extract(from);
    DSPARK_CHECK(!node.empty());
    node.key() = to;
    shapes.insert(std::move(node));
  }

  // Writes config.json and model.safetensors into `dir`, which is made anew; returns it.
  std::string Write(const std::string& dir) const {
    std::filesystem::remove_all(dir);
    std::filesystem::create_directories(dir);
    WriteFile(dir + "/config.json", config.dump());
    std::vector<TensorHeader> headers;
    std::string data;
    for (const auto& [name, shape] : shapes) {
      headers.push_back({name, TensorType::kF32, shape});
      data += Quantize(TensorType::kF32,
                       RandomValues(7, headers.size(), headers.back().Bytes() / sizeof(float), 0.3f));
    }
    if (!d2t.empty()) headers.push_back({"d2t", TensorType::kI64, {int64_t(d2t.size())}});
    for (const int64_t id : d2t) data += Bytes(id);
    WriteFile(dir + "/model.safetensors", SafetensorsHeader(headers) + data);
    return dir;
  }
};

// DeepSpec's form of a block drafter with every head, or of Eagle3.
inline DrafterDirectory DeepSpecDirectory(DrafterKind kind, MarkovHead markov = MarkovHead::kVanilla) {
  DrafterConfig c = TinyDrafterConfig(kind);
  c.own_embedding = c.own_head = true;
  DrafterDirectory d{.config = BackboneKeys(c), .shapes = {}, .d2t = {}};
  d.config["num_target_layers"] = c.target_layers;
  d.config["target_layer_ids"] = c.taps;
  if (kind == DrafterKind::kEagle3) {
    d.config["architectures"] = {"Qwen3Eagle3Model"};
    d.config["ttt_length"] = c.block_size;
  } else {
    d.config["architectures"] = {"Qwen3DSparkModel"};
    d.config["block_size"] = c.block_size;
    d.config["mask_token_id"] = c.mask_token;
    d.config["markov_rank"] = c.markov_rank = 8;
    d.config["markov_head_type"] = markov == MarkovHead::kGated ? "gated"
                                   : markov == MarkovHead::kRnn ? "rnn"
                                                                : "vanilla";
    d.config["enable_confidence_head"] = d.config["confidence_head_with_markov"] = true;
    c.markov = markov;
    c.confidence = c.confidence_with_markov = true;
  }
  d.AddTensors(c);
  return d;
}

// z-lab's DFlash.
inline DrafterDirectory ZlabDirectory() {
  const DrafterConfig c = TinyDrafterConfig(DrafterKind::kBlock);
  DrafterDirectory d{.config = BackboneKeys(c), .shapes = {}, .d2t = {}};
  d.config["architectures"] = {"DFlashDraftModel"};
  d.config["num_target_layers"] = c.target_layers;
  d.config["block_size"] = 16;
  d.config["dflash_config"] = {{"target_layer_ids", c.taps}, {"mask_token_id", c.mask_token}};
  d.AddTensors(c);
  return d;
}

// SpecForge's Eagle3: a Llama layer, a head of `rows` rows for the even ids.
inline DrafterDirectory SpecForgeDirectory(int rows = 100) {
  DrafterConfig c = TinyDrafterConfig(DrafterKind::kEagle3);
  c.backbone.qk_norm = false;
  c.backbone.vocab = rows;
  c.own_embedding = c.own_head = true;
  DrafterDirectory d{.config = BackboneKeys(c), .shapes = {}, .d2t = {}};
  d.config["architectures"] = {"LlamaForCausalLMEagle3"};
  d.config["model_type"] = "llama";
  d.config["draft_vocab_size"] = rows;
  d.config["eagle_config"] = {{"eagle_aux_hidden_state_layer_ids", c.taps}};
  d.AddTensors(c);
  for (const auto& [name, shape] : std::map(d.shapes)) {
    if (name.starts_with("layers.0.")) d.Rename(name, "midlayer." + name.substr(9));
  }
  d.shapes["t2d"] = {c.target_vocab};
  for (int i = 0; i < rows; ++i) d.d2t.push_back(i);  // id 2i, as the difference to i
  return d;
}

// DeepSeek-V3's multi-token prediction behind ten layers.
inline DrafterDirectory MtpDirectory() {
  DrafterConfig c = TinyDrafterConfig(DrafterKind::kMtp);
  DrafterDirectory d{.config = BackboneKeys(c), .shapes = {}, .d2t = {}};
  d.config["architectures"] = {"Qwen3MTPModel"};
  d.config["num_hidden_layers"] = c.target_layers;
  d.config["num_nextn_predict_layers"] = 1;
  const std::string prefix = "model.layers.10.";
  for (const auto& [name, shape] : LayerShapes(c.backbone)) {
    d.shapes[prefix + DeepSpecTensorName(name).substr(9)] = shape;
  }
  d.shapes[prefix + "eh_proj.weight"] = {64, 128};
  d.shapes[prefix + "enorm.weight"] = d.shapes[prefix + "hnorm.weight"] = {64};
  d.shapes[prefix + "shared_head.norm.weight"] = {64};
  return d;
}

// The same keys and tensors as GGUF of architecture `a`, without those of one form alone.
inline GgufBuilder TinyDrafterGguf(const std::string& a, const DrafterConfig& c) {
  GgufBuilder b;
  const ModelConfig& m = c.backbone;
  b.String("general.architecture", a);
  b.U32(a + ".block_count", uint32_t(m.layers));
  b.U32(a + ".context_length", uint32_t(m.max_context));
  b.U32(a + ".embedding_length", uint32_t(m.d_model));
  b.U32(a + ".feed_forward_length", uint32_t(m.d_ffn));
  b.U32(a + ".attention.head_count", uint32_t(m.heads));
  b.U32(a + ".attention.head_count_kv", uint32_t(m.kv_heads));
  b.U32(a + ".attention.key_length", uint32_t(m.head_dim));
  b.F32(a + ".attention.layer_norm_rms_epsilon", m.rms_eps);
  b.F32(a + ".rope.freq_base", m.rope_theta);
  b.U32(a + ".vocab_size", uint32_t(c.target_vocab));
  for (const auto& [name, shape] : DrafterShapes(c)) {
    const TensorHeader header{name, TensorType::kF32, shape};
    const std::vector<uint64_t> ne(shape.rbegin(), shape.rend());
    const auto values = RandomValues(7, b.tensors.size(), header.Bytes() / sizeof(float), 0.3f);
    b.tensors.push_back({name, uint32_t(TensorType::kF32), ne, Quantize(TensorType::kF32, values), {}});
  }
  return b;
}

}  // namespace dspark::test

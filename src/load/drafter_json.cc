#include "load/drafter_json.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string_view MarkovName(MarkovHead head) {
  return head == MarkovHead::kGated ? "gated" : head == MarkovHead::kRnn ? "rnn" : "vanilla";
}

Json BackboneJson(const DrafterConfig& c, TensorType type) {
  const ModelConfig& b = c.backbone;
  // V3's layer of prediction stands behind all the target's.
  const int layers = c.kind == DrafterKind::kMtp ? c.target_layers : b.layers;
  return {{"model_type", "qwen3"},
          {"dtype", type == TensorType::kBF16 ? "bfloat16" : "float32"},
          {"hidden_act", "silu"},
          {"attention_bias", false},
          {"hidden_size", b.d_model},
          {"intermediate_size", b.d_ffn},
          {"num_hidden_layers", layers},
          {"num_attention_heads", b.heads},
          {"num_key_value_heads", b.kv_heads},
          {"head_dim", b.head_dim},
          {"layer_types", std::vector<std::string>(size_t(layers), "full_attention")},
          {"max_position_embeddings", b.max_context},
          {"rms_norm_eps", b.rms_eps},
          {"rope_theta", b.rope_theta},
          {"rope_parameters", {{"rope_theta", b.rope_theta}, {"rope_type", "default"}}},
          {"tie_word_embeddings", false},
          {"vocab_size", c.target_vocab}};
}

}  // namespace

Json DeepSpecConfig(const DrafterConfig& c, TensorType type) {
  Json json;
  const auto architecture = [&](const char* name) { json["architectures"] = {name}; };
  if (c.kind == DrafterKind::kEagle3) {
    architecture("Qwen3Eagle3Model");
    json["draft_num_hidden_layers"] = 1;
    json["ttt_length"] = c.block_size;
    json["target_layer_ids"] = c.taps;
  } else if (c.kind == DrafterKind::kMtp) {
    architecture("Qwen3MTPModel");
    json["num_nextn_predict_layers"] = 1;
    json["ttt_length"] = c.block_size;
  } else if (!c.anchor_first) {
    architecture("DFlashDraftModel");
    json["block_size"] = c.block_size;
    json["dflash_config"] = {{"target_layer_ids", c.taps}, {"mask_token_id", c.mask_token}};
  } else {
    architecture("Qwen3DSparkModel");
    json["block_size"] = c.block_size;
    json["mask_token_id"] = c.mask_token;
    json["target_layer_ids"] = c.taps;
    json["markov_rank"] = c.markov_rank;
    if (c.markov != MarkovHead::kNone) json["markov_head_type"] = MarkovName(c.markov);
    json["enable_confidence_head"] = c.confidence;
    if (c.confidence) json["confidence_head_with_markov"] = c.confidence_with_markov;
    if (!c.confidence_temperatures.empty()) json["confidence_temperatures"] = c.confidence_temperatures;
  }
  if (c.target_layers > 0) json["num_target_layers"] = c.target_layers;
  json.update(BackboneJson(c, type));
  return json;
}

}  // namespace dspark

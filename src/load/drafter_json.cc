#include "load/drafter_json.h"

#include <fmt/format.h>

#include <string>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string_view MarkovName(MarkovHead head) {
  return head == MarkovHead::kGated ? "gated" : head == MarkovHead::kRnn ? "rnn" : "vanilla";
}

// The version whose form of config.json this is: the one that DeepSpec asks for.
constexpr char kTransformersVersion[] = "5.10.2";

// The double of the fewest digits that is read back as `value`.
double Shortest(float value) { return std::stod(fmt::format("{}", value)); }

Json BackboneJson(const DrafterConfig& c, TensorType type) {
  const ModelConfig& b = c.backbone;
  // V3's layer of prediction stands behind all the target's.
  const int layers = c.kind == DrafterKind::kMtp ? c.target_layers : b.layers;
  return {{"model_type", "qwen3"},
          {"dtype", type == TensorType::kBF16 ? "bfloat16" : "float32"},
          {"hidden_act", "silu"},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"initializer_range", 0.02},
          {"hidden_size", b.d_model},
          {"intermediate_size", b.d_ffn},
          {"num_hidden_layers", layers},
          {"num_attention_heads", b.heads},
          {"num_key_value_heads", b.kv_heads},
          {"head_dim", b.head_dim},
          {"layer_types", std::vector<std::string>(size_t(layers), "full_attention")},
          {"max_position_embeddings", b.max_context},
          {"max_window_layers", c.target_layers},
          {"sliding_window", nullptr},
          {"use_sliding_window", false},
          {"rms_norm_eps", Shortest(b.rms_eps)},
          {"rope_parameters", {{"rope_theta", Shortest(b.rope_theta)}, {"rope_type", "default"}}},
          {"tie_word_embeddings", false},
          {"vocab_size", c.target_vocab},
          {"bos_token_id", b.bos ? Json(*b.bos) : Json()},
          {"eos_token_id", b.eos.empty() ? Json() : Json(b.eos[0])},
          {"pad_token_id", nullptr},
          {"use_cache", true},
          {"transformers_version", kTransformersVersion}};
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
    json["rope_theta"] = Shortest(c.backbone.rope_theta);  // where the libraries of that form look for it
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

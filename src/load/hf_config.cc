#include "load/hf_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>

#include "core/mapped_file.h"
#include "load/family.h"
#include "load/json_file.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

Result<const Family*> ReadFamily(const JsonSection& config) {
  const Json* names = config.Find("architectures");
  if (names && names->is_array() && names->size() == 1 && (*names)[0].is_string()) {
    const auto name = (*names)[0].get<std::string>();
    if (const Family* family = FindFamily(&Family::hf, name)) return family;
  }
  return config.Wrong("architectures", "one of " + FamilyNames(&Family::hf));
}

// Attention that only looks back a window, in the older spelling and the newer.
Status CheckFullAttention(const JsonSection& config) {
  DSPARK_ASSIGN_OR_RETURN(const bool windowed, config.Flag("use_sliding_window", false));
  if (windowed) return config.Wrong("use_sliding_window", "false; windowed attention is not supported");
  const Json* types = config.Find("layer_types");
  if (!types) return {};
  if (types->is_array() && std::ranges::all_of(*types, [](const Json& t) { return t == "full_attention"; })) {
    return {};
  }
  return config.Wrong("layer_types", "full_attention throughout; other layers are not supported");
}

Status ReadSizes(const JsonSection& config, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->layers, config.Size("num_hidden_layers"));
  DSPARK_ASSIGN_OR_RETURN(c->d_model, config.Size("hidden_size"));
  DSPARK_ASSIGN_OR_RETURN(c->d_ffn, config.Size("intermediate_size"));
  DSPARK_ASSIGN_OR_RETURN(c->heads, config.Size("num_attention_heads"));
  DSPARK_ASSIGN_OR_RETURN(c->kv_heads, config.Size("num_key_value_heads", c->heads));
  DSPARK_ASSIGN_OR_RETURN(c->vocab, config.Size("vocab_size"));
  DSPARK_ASSIGN_OR_RETURN(c->max_context, config.Size("max_position_embeddings"));
  if (!config.Find("head_dim") && c->d_model % c->heads != 0) {
    return MakeError("{}: hidden_size {} cannot be split into {} heads", config.path, c->d_model, c->heads);
  }
  DSPARK_ASSIGN_OR_RETURN(c->head_dim, config.Size("head_dim", c->d_model / c->heads));
  DSPARK_ASSIGN_OR_RETURN(c->rms_eps, config.Real("rms_norm_eps"));
  DSPARK_ASSIGN_OR_RETURN(c->tied_embeddings, config.Flag("tie_word_embeddings", false));
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    DSPARK_ASSIGN_OR_RETURN(const bool bias, config.Flag(key, false));
    if (bias) return config.Wrong(key, "false; models with biases are not supported");
  }
  DSPARK_ASSIGN_OR_RETURN(const std::string activation, config.Text("hidden_act", "silu"));
  if (activation != "silu") return config.Wrong("hidden_act", "silu");
  return {};
}

Result<RopeScaling> ReadLlama3Scaling(const JsonSection& rope) {
  RopeScaling s;
  DSPARK_ASSIGN_OR_RETURN(s.factor, rope.Real("factor"));
  DSPARK_ASSIGN_OR_RETURN(s.low, rope.Real("low_freq_factor"));
  DSPARK_ASSIGN_OR_RETURN(s.high, rope.Real("high_freq_factor"));
  DSPARK_ASSIGN_OR_RETURN(s.original_context, rope.Size("original_max_position_embeddings"));
  if (s.factor < 1) return rope.Wrong("factor", "at least 1");
  if (s.low <= 0) return rope.Wrong("low_freq_factor", "a positive number");
  if (s.high <= s.low) return rope.Wrong("high_freq_factor", "more than low_freq_factor");
  return s;
}

// theta stands beside `rope_scaling` in the older spelling and inside `rope_parameters` in the newer.
Status ReadRope(const JsonSection& config, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->rope_theta, config.Real("rope_theta", 10000));
  const char* key = config.Find("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.Find(key)) return {};
  DSPARK_ASSIGN_OR_RETURN(const JsonSection rope, config.Object(key));
  DSPARK_ASSIGN_OR_RETURN(c->rope_theta, rope.Real("rope_theta", c->rope_theta));
  const char* type_key = rope.Find("rope_type") ? "rope_type" : "type";
  DSPARK_ASSIGN_OR_RETURN(const std::string type, rope.Text(type_key, "default"));
  if (type == "default") return {};
  if (type != "llama3") return rope.Wrong(type_key, "default or llama3; other scalings are not supported");
  DSPARK_ASSIGN_OR_RETURN(const RopeScaling scaling, ReadLlama3Scaling(rope));
  c->rope_freq_divisors = RopeFreqDivisors(scaling, c->rope_theta, c->head_dim);
  return {};
}

Status ReadEndTokens(const JsonSection& config, const std::string& dir, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int32_t> bos, config.TokenIds("bos_token_id"));
  if (!bos.empty()) c->bos = bos[0];
  DSPARK_ASSIGN_OR_RETURN(c->eos, config.TokenIds("eos_token_id"));
  const std::string path = dir + "/generation_config.json";
  if (!FileExists(path)) return {};
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int32_t> eos, (JsonSection{json, path}.TokenIds("eos_token_id")));
  if (!eos.empty()) c->eos = eos;
  return {};
}

}  // namespace

Status ReadDecoderConfig(const JsonSection& config, ModelConfig* c) {
  DSPARK_RETURN_IF_ERROR(CheckFullAttention(config));
  DSPARK_RETURN_IF_ERROR(ReadSizes(config, c));
  return ReadRope(config, c);
}

Result<ModelConfig> ConfigFromHf(const std::string& dir) {
  const std::string path = dir + "/config.json";
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  const JsonSection config{json, path};
  ModelConfig c;
  DSPARK_ASSIGN_OR_RETURN(const Family* family, ReadFamily(config));
  c.architecture = family->gguf;
  c.qk_norm = family->qk_norm;
  c.name = std::filesystem::path(dir).lexically_normal().filename().string();
  DSPARK_RETURN_IF_ERROR(ReadDecoderConfig(config, &c));
  DSPARK_RETURN_IF_ERROR(ReadEndTokens(config, dir, &c));
  DSPARK_RETURN_IF_ERROR(CheckConfig(c, path));
  return c;
}

Result<std::string> ChatTemplateFromHf(const std::string& dir) {
  const std::string jinja = dir + "/chat_template.jinja", path = dir + "/tokenizer_config.json";
  if (FileExists(jinja)) {
    DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(jinja));
    return std::string(file.bytes().begin(), file.bytes().end());
  }
  if (!FileExists(path)) return std::string();
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  return JsonSection{json, path}.Text("chat_template", "");
}

}  // namespace dspark

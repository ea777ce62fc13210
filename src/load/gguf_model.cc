#include "load/gguf_model.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "load/family.h"
#include "load/printable.h"

namespace dspark {
namespace {

constexpr int64_t kControlToken = 3;  // llama.cpp's token_type

// A size that this engine can only take as `required`.
Status MustBe(const Gguf& gguf, std::string_view key, int required) {
  DSPARK_ASSIGN_OR_RETURN(const int value, GgufSize(gguf, key, required));
  if (value == required) return {};
  return MakeError("{}: metadata key {} is {}, only the head size {} is supported", gguf.path, key, value,
                   required);
}

// An architecture's own key: "llama." + name.
std::string Key(const ModelConfig& c, std::string_view name) {
  return fmt::format("{}.{}", c.architecture, name);
}

Status ReadSizes(const Gguf& gguf, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->layers, GgufSize(gguf, Key(*c, "block_count")));
  DSPARK_ASSIGN_OR_RETURN(c->max_context, GgufSize(gguf, Key(*c, "context_length")));
  DSPARK_ASSIGN_OR_RETURN(c->d_model, GgufSize(gguf, Key(*c, "embedding_length")));
  DSPARK_ASSIGN_OR_RETURN(c->d_ffn, GgufSize(gguf, Key(*c, "feed_forward_length")));
  DSPARK_ASSIGN_OR_RETURN(c->heads, GgufSize(gguf, Key(*c, "attention.head_count")));
  DSPARK_ASSIGN_OR_RETURN(c->kv_heads, GgufSize(gguf, Key(*c, "attention.head_count_kv"), c->heads));
  if (!gguf.FindKey(Key(*c, "attention.key_length")) && c->d_model % c->heads != 0) {
    return MakeError("{}: an embedding of {} values cannot be split into {} heads; the file is damaged",
                     gguf.path, c->d_model, c->heads);
  }
  DSPARK_ASSIGN_OR_RETURN(c->head_dim,
                          GgufSize(gguf, Key(*c, "attention.key_length"), c->d_model / c->heads));
  DSPARK_RETURN_IF_ERROR(MustBe(gguf, Key(*c, "attention.value_length"), c->head_dim));
  DSPARK_RETURN_IF_ERROR(MustBe(gguf, Key(*c, "rope.dimension_count"), c->head_dim));
  DSPARK_ASSIGN_OR_RETURN(const int64_t experts, gguf.GetOr<int64_t>(Key(*c, "expert_count"), 0));
  if (experts != 0) {
    return MakeError("{}: a mixture of {} experts; only dense models are supported", gguf.path, experts);
  }
  return {};
}

Status ReadVocabulary(const Gguf& gguf, ModelConfig* c) {
  const TensorView* embedding = gguf.FindTensor("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2 || embedding->shape[0] > std::numeric_limits<int>::max()) {
    return MakeError("{}: tensor token_embd.weight is missing or no matrix; the file is not a complete model",
                     gguf.path);
  }
  c->vocab = int(embedding->shape[0]);
  c->tied_embeddings = !gguf.FindTensor("output.weight");
  return {};
}

Status ReadRope(const Gguf& gguf, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(const double theta, gguf.GetOr<double>(Key(*c, "rope.freq_base"), 10000));
  c->rope_theta = float(theta);
  DSPARK_ASSIGN_OR_RETURN(const std::string_view type,
                          gguf.GetOr<std::string_view>(Key(*c, "rope.scaling.type"), "none"));
  if (type != "none") {
    return MakeError(
        "{}: metadata key {} is {}; supported is none (and Llama 3's scaling as a "
        "rope_freqs.weight tensor)",
        gguf.path, Key(*c, "rope.scaling.type"), Printable(type));
  }
  const TensorView* divisors = gguf.FindTensor("rope_freqs.weight");
  if (!divisors) return {};
  if (divisors->type != TensorType::kF32 || divisors->shape != std::vector<int64_t>{c->head_dim / 2}) {
    return MakeError("{}: tensor rope_freqs.weight is not {} F32 values; the file is damaged", gguf.path,
                     c->head_dim / 2);
  }
  c->rope_freq_divisors.resize(size_t(c->head_dim) / 2);
  Dequantize(divisors->type, divisors->bytes.data(), c->head_dim / 2, c->rope_freq_divisors.data());
  return {};
}

// The ids of control tokens that end a turn whether or not the file calls them eos.
Result<std::vector<int32_t>> EndOfTurnTokens(const Gguf& gguf, const Family& family) {
  std::vector<int32_t> ids;
  using Strings = std::vector<std::string_view>;
  DSPARK_ASSIGN_OR_RETURN(const Strings tokens, gguf.GetOr<Strings>("tokenizer.ggml.tokens", {}));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int64_t> types,
                          gguf.GetOr<std::vector<int64_t>>("tokenizer.ggml.token_type", {}));
  for (size_t id = 0; id < std::min(tokens.size(), types.size()); ++id) {
    const bool ends =
        tokens[id] == "<|im_end|>" || tokens[id] == "<|eot_id|>" || tokens[id] == family.gguf_eos;
    if (types[id] == kControlToken && ends) ids.push_back(int32_t(id));
  }
  return ids;
}

Status ReadEndTokens(const Gguf& gguf, const Family& family, ModelConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->bos, GgufTokenId(gguf, "tokenizer.ggml.bos_token_id"));
  DSPARK_ASSIGN_OR_RETURN(c->add_bos, gguf.GetOr<bool>("tokenizer.ggml.add_bos_token", false));
  DSPARK_ASSIGN_OR_RETURN(c->eos, EndOfTurnTokens(gguf, family));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    DSPARK_ASSIGN_OR_RETURN(const std::optional<int32_t> id, GgufTokenId(gguf, key));
    if (id) c->eos.push_back(*id);
  }
  std::ranges::sort(c->eos);
  c->eos.erase(std::unique(c->eos.begin(), c->eos.end()), c->eos.end());
  return {};
}

}  // namespace

Result<int> GgufSize(const Gguf& gguf, std::string_view key, std::optional<int> otherwise) {
  if (otherwise && !gguf.FindKey(key)) return *otherwise;
  DSPARK_ASSIGN_OR_RETURN(const int64_t value, gguf.Get<int64_t>(key));
  if (value <= 0 || value > std::numeric_limits<int>::max()) {
    return MakeError("{}: metadata key {} is {}, not a size; the file is damaged", gguf.path, key, value);
  }
  return int(value);
}

Result<std::optional<int32_t>> GgufTokenId(const Gguf& gguf, std::string_view key) {
  if (!gguf.FindKey(key)) return std::optional<int32_t>();
  DSPARK_ASSIGN_OR_RETURN(const int64_t id, gguf.Get<int64_t>(key));
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
    return MakeError("{}: metadata key {} is {}, not a token id; the file is damaged", gguf.path, key, id);
  }
  return std::optional<int32_t>(int32_t(id));
}

Status ReadDecoderKeys(const Gguf& gguf, ModelConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadSizes(gguf, c));
  DSPARK_RETURN_IF_ERROR(ReadRope(gguf, c));
  DSPARK_ASSIGN_OR_RETURN(const double eps, gguf.Get<double>(Key(*c, "attention.layer_norm_rms_epsilon")));
  c->rms_eps = float(eps);
  return {};
}

Result<ModelConfig> ConfigFromGguf(const Gguf& gguf) {
  ModelConfig c;
  DSPARK_ASSIGN_OR_RETURN(const std::string_view architecture,
                          gguf.Get<std::string_view>("general.architecture"));
  const Family* family = FindFamily(&Family::gguf, architecture);
  if (!family) {
    return MakeError("{}: architecture {} is not supported; this build runs {}", gguf.path,
                     Printable(architecture), FamilyNames(&Family::gguf));
  }
  DSPARK_ASSIGN_OR_RETURN(const std::string_view name, gguf.GetOr<std::string_view>("general.name", ""));
  c.architecture = architecture;
  c.name = name;
  c.rope_interleaved = family->gguf_interleaved;
  c.qk_norm = family->qk_norm;
  DSPARK_RETURN_IF_ERROR(ReadDecoderKeys(gguf, &c));
  DSPARK_RETURN_IF_ERROR(ReadVocabulary(gguf, &c));
  DSPARK_RETURN_IF_ERROR(ReadEndTokens(gguf, *family, &c));
  DSPARK_RETURN_IF_ERROR(CheckConfig(c, gguf.path));
  return c;
}

}  // namespace dspark

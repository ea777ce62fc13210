#include "load/hf_weights.h"

#include <set>
#include <utility>

#include "load/json_file.h"
#include "load/printable.h"
#include "load/safetensors.h"

namespace dspark {
namespace {

using Name = std::pair<std::string_view, std::string_view>;  // Hugging Face's, llama.cpp's

constexpr Name kWholeNames[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                {"model.norm.weight", "output_norm.weight"},
                                {"lm_head.weight", "output.weight"}};

constexpr Name kLayerNames[] = {
    {"input_layernorm.weight", "attn_norm.weight"},    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},      {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},       {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},       {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"}};

// Frequencies that old checkpoints carry along; they follow from rope_theta.
constexpr std::string_view kInverseFrequencies = ".self_attn.rotary_emb.inv_freq";

Status AddTensors(const Safetensors& file, const std::string& path, bool tied,
                  MappedWeights::Tensors* tensors) {
  for (const SafeTensor& tensor : file.tensors) {
    if (tensor.name.ends_with(kInverseFrequencies)) continue;
    const std::string name = LlamaCppName(tensor.name);
    if (name.empty()) {
      return MakeError("{}: tensor {} does not belong to a dense decoder; this variant is not supported",
                       path, Printable(tensor.name));
    }
    if (tied && name == "output.weight") continue;
    if (!tensor.type || !InfoOf(*tensor.type).dequantize) {
      return MakeError("{}: tensor {} has dtype {}; supported are F32, F16 and BF16", path, tensor.name,
                       tensor.dtype);
    }
    const bool added =
        tensors->emplace(name, TensorView{tensor.name, *tensor.type, tensor.shape, tensor.bytes}).second;
    if (!added)
      return MakeError("{}: tensor {} is also in another file; remove one of them", path, tensor.name);
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> HfWeightFiles(const std::string& dir) {
  const std::string single = dir + "/model.safetensors", index = dir + "/model.safetensors.index.json";
  if (FileExists(single)) return std::vector<std::string>{single};
  if (!FileExists(index)) {
    return MakeError(
        "{}: neither model.safetensors nor model.safetensors.index.json; is the download complete?", dir);
  }
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(index));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) return MakeError("{}: key weight_map is missing", index);
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos) {
      return MakeError("{}: tensor {} is not in a file of this directory", index, Printable(tensor));
    }
    const std::string shard = dir + "/" + file.get<std::string>();
    if (!FileExists(shard)) {
      return MakeError("{}: the file {} is not there; is the download complete?", index,
                       Printable(file.get<std::string>()));
    }
    files.insert(shard);
  }
  return std::vector<std::string>(files.begin(), files.end());
}

std::string LlamaCppName(std::string_view hf_name) {
  for (const auto& [theirs, ours] : kWholeNames) {
    if (hf_name == theirs) return std::string(ours);
  }
  constexpr std::string_view kPrefix = "model.layers.";
  if (!hf_name.starts_with(kPrefix)) return {};
  const std::string_view rest = hf_name.substr(kPrefix.size());
  const size_t digits = rest.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || rest[digits] != '.') return {};
  for (const auto& [theirs, ours] : kLayerNames) {
    if (rest.substr(digits + 1) == theirs) return fmt::format("blk.{}.{}", rest.substr(0, digits), ours);
  }
  return {};
}

Result<std::unique_ptr<MappedWeights>> OpenHfWeights(const std::string& dir, const ModelConfig& config) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> paths, HfWeightFiles(dir));
  std::vector<MappedFile> files;
  MappedWeights::Tensors tensors;
  for (const std::string& path : paths) {
    DSPARK_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    DSPARK_ASSIGN_OR_RETURN(const Safetensors parsed, ParseSafetensors(file.bytes(), path));
    DSPARK_RETURN_IF_ERROR(AddTensors(parsed, path, config.tied_embeddings, &tensors));
    files.push_back(std::move(file));
  }
  return std::make_unique<MappedWeights>(dir, std::move(files), std::move(tensors));
}

}  // namespace dspark

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

// Whole names by the table; layer names by `prefix`, digits and the table of layers.
std::string Translate(std::string_view name, std::string_view prefix, std::string_view other_prefix,
                      std::string_view Name::*from, std::string_view Name::*to) {
  for (const Name& whole : kWholeNames) {
    if (name == whole.*from) return std::string(whole.*to);
  }
  if (!name.starts_with(prefix)) return {};
  const std::string_view rest = name.substr(prefix.size());
  const size_t digits = rest.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || rest[digits] != '.') return {};
  for (const Name& layer : kLayerNames) {
    if (rest.substr(digits + 1) == layer.*from) {
      return fmt::format("{}{}.{}", other_prefix, rest.substr(0, digits), layer.*to);
    }
  }
  return {};
}

// Frequencies that old checkpoints carry along; they follow from rope_theta.
constexpr std::string_view kInverseFrequencies = ".self_attn.rotary_emb.inv_freq";

Status AddTensors(const Safetensors& file, const std::string& path, const HfNaming& naming,
                  MappedWeights::Tensors* tensors) {
  for (const SafeTensor& tensor : file.tensors) {
    if (tensor.name.ends_with(kInverseFrequencies)) continue;
    const std::string name = naming.name(tensor.name);
    if (name == kLeftOut) continue;
    if (name.empty()) {
      return MakeError("{}: tensor {} does not belong to a {}; this variant is not supported", path,
                       Printable(tensor.name), naming.kind);
    }
    if (!tensor.type || (!InfoOf(*tensor.type).dequantize && name != kDraftIds)) {
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
  return Translate(hf_name, "model.layers.", "blk.", &Name::first, &Name::second);
}

std::string HuggingFaceName(std::string_view llama_cpp_name) {
  return Translate(llama_cpp_name, "blk.", "model.layers.", &Name::second, &Name::first);
}

Result<HfTensors> MapHfTensors(const std::string& dir, const HfNaming& naming) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> paths, HfWeightFiles(dir));
  HfTensors result;
  for (const std::string& path : paths) {
    DSPARK_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    DSPARK_ASSIGN_OR_RETURN(const Safetensors parsed, ParseSafetensors(file.bytes(), path));
    DSPARK_RETURN_IF_ERROR(AddTensors(parsed, path, naming, &result.tensors));
    result.files.push_back(std::move(file));
  }
  return result;
}

Result<std::unique_ptr<MappedWeights>> OpenHfWeights(const std::string& dir, const ModelConfig& config) {
  const auto name = [&](std::string_view hf_name) {
    std::string ours = LlamaCppName(hf_name);
    return config.tied_embeddings && ours == "output.weight" ? std::string(kLeftOut) : ours;
  };
  DSPARK_ASSIGN_OR_RETURN(HfTensors mapped, MapHfTensors(dir, {name, "dense decoder"}));
  return std::make_unique<MappedWeights>(dir, std::move(mapped.files), std::move(mapped.tensors));
}

}  // namespace dspark

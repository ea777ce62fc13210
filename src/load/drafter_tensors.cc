#include "load/drafter_tensors.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "load/hf_weights.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

// More slots than any drafter was trained with; bounds what one round can cost.
constexpr int kMaxBlock = 256;

using Name = std::pair<std::string_view, std::string_view>;  // DeepSpec's, ours

constexpr Name kWholeNames[] = {{"embed_tokens.weight", "token_embd.weight"},
                                {"lm_head.weight", "output.weight"},
                                {"norm.weight", "output_norm.weight"},
                                {"fc.weight", "fc.weight"},
                                {"fc.bias", "fc.bias"},
                                {"hidden_norm.weight", "enc.output_norm.weight"},
                                {"markov_head.markov_w1.weight", "markov_w1.weight"},
                                {"markov_head.markov_w2.weight", "markov_w2.weight"},
                                {"markov_head.gate_proj.weight", "markov_gate.weight"},
                                {"markov_head.gate_proj.bias", "markov_gate.bias"},
                                {"markov_head.joint_proj.weight", "markov_joint.weight"},
                                {"markov_head.joint_proj.bias", "markov_joint.bias"},
                                {"confidence_head.proj.weight", "conf_proj.weight"},
                                {"confidence_head.proj.bias", "conf_proj.bias"},
                                {"layers.0.hidden_norm.weight", "blk.0.attn_norm_2.weight"},
                                {"eh_proj.weight", "nextn.eh_proj.weight"},
                                {"enorm.weight", "nextn.enorm.weight"},
                                {"hnorm.weight", "nextn.hnorm.weight"},
                                {"d2t", kDraftIds}};

// V3's where they are not DeepSpec's.
constexpr Name kMtpNames[] = {{"shared_head.norm.weight", "output_norm.weight"},
                              {"shared_head.head.weight", "output.weight"}};

std::string_view DropPrefix(std::string_view text, std::string_view prefix) {
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

Status CheckVocabularies(const DrafterConfig& c, const std::string& path) {
  if (c.draft_to_target.empty()) {
    if (c.backbone.vocab == c.target_vocab) return {};
    return MakeError(
        "{}: {} of the target's {} ids have a row in the head, but no tensor d2t says which; the file is not "
        "complete",
        path, c.backbone.vocab, c.target_vocab);
  }
  if (!c.own_head) {
    return MakeError(
        "{}: a reduced vocabulary (tensor d2t) without a head of its own; the file is not complete", path);
  }
  const auto& ids = c.draft_to_target;
  if (ids.size() != size_t(c.backbone.vocab)) {
    return MakeError("{}: tensor d2t has {} ids for {} rows of the head; the file is damaged", path,
                     ids.size(), c.backbone.vocab);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= c.target_vocab) {
      return MakeError(
          "{}: tensor d2t maps row {} to id {}, outside the vocabulary of {}; the file is damaged", path, i,
          ids[i], c.target_vocab);
    }
    // Two rows of one id would make q not the distribution that was drawn from.
    if (i > 0 && ids[i] <= ids[i - 1]) {
      return MakeError(
          "{}: tensor d2t maps rows {} and {} to ids {} and {}, which do not increase; convert the "
          "drafter again",
          path, i - 1, i, ids[i - 1], ids[i]);
    }
  }
  return {};
}

Status CheckTaps(const DrafterConfig& c, const std::string& path) {
  if (c.taps.empty()) return MakeError("{}: no target layers to tap; the file is not complete", path);
  for (size_t i = 0; i < c.taps.size(); ++i) {
    if (c.taps[i] < -1 || (i > 0 && c.taps[i] <= c.taps[i - 1])) {
      return MakeError(
          "{}: the target layers to tap are not increasing ids from -1 (the embedding) on; the file is "
          "damaged",
          path);
    }
  }
  // The last layer's output is seen behind the final norm by some programs and before it by others
  // (drafters.md §1.2), so that no drafter can rely on it.
  if (c.target_layers > 0 && c.taps.back() >= c.target_layers - 1) {
    return MakeError(
        "{}: taps target layer {}, but of {} layers only 0 to {} can be tapped; the file is damaged", path,
        c.taps.back(), c.target_layers, c.target_layers - 2);
  }
  return {};
}

Status CheckTemperatures(const DrafterConfig& c, const std::string& path) {
  const auto& temperatures = c.confidence_temperatures;
  const auto good = [](float t) { return t > 0 && std::isfinite(t); };
  const size_t expected = c.confidence ? size_t(c.max_drafts()) : 0;
  if (temperatures.empty() || (temperatures.size() == expected && std::ranges::all_of(temperatures, good))) {
    return {};
  }
  return MakeError(
      "{}: {} confidence_temperatures, expected {} numbers above 0, one for each draft that the confidence "
      "head judges; take the key out, or calibrate again",
      path, temperatures.size(), expected);
}

Status CheckBlock(const DrafterConfig& c, const std::string& path) {
  if (c.block_size < 1 || c.block_size > kMaxBlock || c.max_drafts() < 1) {
    return MakeError("{}: the block size is {}, expected {} to {}; the file is damaged", path, c.block_size,
                     c.anchor_first ? 1 : 2, kMaxBlock);
  }
  if (c.kind != DrafterKind::kBlock) return {};
  if (c.mask_token < 0 || c.mask_token >= c.target_vocab) {
    return MakeError("{}: the mask token {} is outside the vocabulary of {}; the file is damaged", path,
                     c.mask_token, c.target_vocab);
  }
  if ((c.markov == MarkovHead::kNone) != (c.markov_rank == 0)) {
    return MakeError("{}: a Markov head of rank {}; the file is damaged", path, c.markov_rank);
  }
  if (c.confidence_with_markov && c.markov == MarkovHead::kNone) {
    return MakeError("{}: the confidence head reads the Markov head's embedding, but there is no Markov head",
                     path);
  }
  return CheckTemperatures(c, path);
}

void AddBlockShapes(const DrafterConfig& c, TensorShapes* shapes) {
  const int64_t d = c.backbone.d_model, r = c.markov_rank;
  (*shapes)["enc.output_norm.weight"] = {d};
  if (c.markov != MarkovHead::kNone) {
    (*shapes)["markov_w1.weight"] = {c.target_vocab, r};
    (*shapes)["markov_w2.weight"] = {c.backbone.vocab, r};
  }
  if (c.markov == MarkovHead::kGated) {
    (*shapes)["markov_gate.weight"] = {r, d + r};
    (*shapes)["markov_gate.bias"] = {r};
  }
  if (c.markov == MarkovHead::kRnn) {
    (*shapes)["markov_joint.weight"] = {3 * r, 2 * r + d};
    (*shapes)["markov_joint.bias"] = {3 * r};
  }
  if (c.confidence) {
    (*shapes)["conf_proj.weight"] = {1, c.confidence_with_markov ? d + r : d};
    (*shapes)["conf_proj.bias"] = {1};
  }
}

Result<std::vector<int32_t>> ReadDraftIds(const TensorView& tensor, bool offsets, const std::string& path) {
  if (tensor.type != TensorType::kI64 || tensor.shape.size() != 1) {
    return MakeError("{}: tensor d2t is not a list of I64 numbers; convert the drafter again", path);
  }
  std::vector<int32_t> ids(size_t(tensor.shape[0]));
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto number = LoadUnaligned<int64_t>(&tensor.bytes[i * sizeof(int64_t)]);
    // Only real ids are below kMaxModelSize; others become -1, which CheckVocabularies refuses.
    const int64_t id =
        std::clamp<int64_t>(number, -kMaxModelSize, kMaxModelSize) + (offsets ? int64_t(i) : 0);
    ids[i] = id >= 0 && id < kMaxModelSize ? int32_t(id) : -1;
  }
  return ids;
}

}  // namespace

std::string DrafterTensorName(std::string_view hf_name) {
  const std::string_view rest = DropPrefix(hf_name, "model.");
  std::string name(rest);
  if (rest.starts_with("midlayer.")) name = "layers.0." + std::string(DropPrefix(rest, "midlayer."));
  for (const auto& [theirs, ours] : kWholeNames) {
    if (name == theirs) return std::string(ours);
  }
  return name.starts_with("layers.") ? LlamaCppName("model." + name) : std::string();
}

std::string DeepSpecTensorName(std::string_view name) {
  for (const auto& [theirs, ours] : kWholeNames) {
    if (name == ours) return std::string(theirs);
  }
  return std::string(DropPrefix(HuggingFaceName(name), "model."));
}

std::string MtpTensorName(std::string_view hf_name, int target_layers) {
  const std::string prefix = fmt::format("model.layers.{}.", target_layers);
  if (hf_name == "d2t") return std::string(kDraftIds);
  if (!hf_name.starts_with(prefix)) return {};
  const std::string_view rest = DropPrefix(hf_name, prefix);
  for (const auto& [theirs, ours] : kMtpNames) {
    if (rest == theirs) return std::string(ours);
  }
  for (const auto& [theirs, ours] : kWholeNames) {
    if (rest == theirs && (ours == "token_embd.weight" || ours.starts_with("nextn.")))
      return std::string(ours);
  }
  return LlamaCppName(fmt::format("model.layers.0.{}", rest));
}

std::string CheckpointTensorName(const DrafterConfig& config, std::string_view name) {
  std::string plain = DeepSpecTensorName(name);
  if (config.kind != DrafterKind::kMtp || name == kDraftIds) return plain;
  std::string_view rest = DropPrefix(plain, "layers.0.");
  for (const auto& [theirs, ours] : kMtpNames) {
    if (name == ours) rest = theirs;
  }
  return fmt::format("model.layers.{}.{}", config.target_layers, rest);
}

TensorShapes DrafterShapes(const DrafterConfig& c) {
  const int64_t d = c.backbone.d_model;
  TensorShapes shapes = LayerShapes(c.backbone);
  shapes["output_norm.weight"] = {d};
  if (c.own_embedding) shapes["token_embd.weight"] = {c.target_vocab, d};
  if (c.own_head) shapes["output.weight"] = {c.backbone.vocab, d};
  if (c.kind == DrafterKind::kMtp) {
    shapes["nextn.eh_proj.weight"] = {d, 2 * d};
    shapes["nextn.enorm.weight"] = shapes["nextn.hnorm.weight"] = {d};
    return shapes;
  }
  shapes["fc.weight"] = {d, int64_t(c.taps.size()) * c.target_width};
  if (c.fc_bias) shapes["fc.bias"] = {d};
  if (c.kind == DrafterKind::kBlock) {
    AddBlockShapes(c, &shapes);
    return shapes;
  }
  shapes["blk.0.attn_norm_2.weight"] = {d};
  for (const char* name : {"attn_q", "attn_k", "attn_v"}) {
    shapes[fmt::format("blk.0.{}.weight", name)][1] = 2 * d;
  }
  if (!c.head_norm) shapes.erase("output_norm.weight");
  return shapes;
}

Result<DrafterFiles> AssembleDrafter(DrafterConfig c, DrafterParts parts) {
  if (const auto ids = parts.tensors.find(kDraftIds); ids != parts.tensors.end()) {
    DSPARK_ASSIGN_OR_RETURN(c.draft_to_target, ReadDraftIds(ids->second, parts.offsets, parts.path));
    c.backbone.vocab = int(c.draft_to_target.size());
    parts.tensors.erase(ids);
  }
  c.fc_bias = parts.tensors.contains("fc.bias");
  if (!c.frozen_copies) {
    c.own_embedding = parts.tensors.contains("token_embd.weight");
    c.own_head = parts.tensors.contains("output.weight");
    c.backbone.qk_norm = parts.tensors.contains("blk.0.attn_q_norm.weight");
  }
  DSPARK_RETURN_IF_ERROR(CheckDrafterConfig(c, parts.config));
  auto weights =
      std::make_unique<MappedWeights>(parts.path, std::move(parts.files), std::move(parts.tensors));
  DSPARK_RETURN_IF_ERROR(CheckDrafterTensors(c, *weights));
  return DrafterFiles{parts.path, std::move(c), std::move(weights)};
}

Status CheckDrafterConfig(const DrafterConfig& c, const std::string& path) {
  DSPARK_RETURN_IF_ERROR(CheckConfig(c.backbone, path));
  for (const auto& [name, size] :
       {std::pair("target's width", c.target_width), std::pair("target's vocabulary", c.target_vocab),
        std::pair("Markov rank", std::max(c.markov_rank, 1))}) {
    if (size < 1 || size > kMaxModelSize) {
      return MakeError("{}: the {} is {}, out of range; the file is damaged", path, name, size);
    }
  }
  if (c.backbone.layers != 1 && c.kind != DrafterKind::kBlock) {
    return MakeError("{}: {} layers; only drafters of this kind with one layer are supported", path,
                     c.backbone.layers);
  }
  DSPARK_RETURN_IF_ERROR(CheckBlock(c, path));
  if (c.kind != DrafterKind::kMtp) DSPARK_RETURN_IF_ERROR(CheckTaps(c, path));
  if ((!c.own_embedding || !c.own_head) && c.backbone.d_model != c.target_width) {
    return MakeError(
        "{}: no {} of its own, but its width {} is not the target's {}; the file is not complete", path,
        c.own_embedding ? "head" : "embedding", c.backbone.d_model, c.target_width);
  }
  return CheckVocabularies(c, path);
}

Status CheckDrafterTensors(const DrafterConfig& config, const MappedWeights& weights) {
  DSPARK_RETURN_IF_ERROR(CheckLayerCount(config.backbone.layers, weights));
  return CheckShapes(DrafterShapes(config), weights, fmt::format("{} drafter", config.form));
}

}  // namespace dspark

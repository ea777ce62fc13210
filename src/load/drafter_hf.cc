#include "load/drafter_hf.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "load/drafter_tensors.h"
#include "load/hf_config.h"
#include "load/hf_weights.h"
#include "load/json_file.h"
#include "load/no_config.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

// The backbone's own keys, and what follows from them: by default the target has its width and vocabulary.
Status ReadBackbone(const JsonSection& config, DrafterConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadDecoderConfig(config, &c->backbone));
  DSPARK_ASSIGN_OR_RETURN(c->backbone.architecture, config.Text("model_type", ""));
  c->backbone.tied_embeddings = false;
  c->target_vocab = c->backbone.vocab;
  c->target_width = c->backbone.d_model;
  return {};
}

// Eagle3's and speculators' drafters may be narrower than their target, with a head of fewer rows.
Status ReadTargetSizes(const JsonSection& config, DrafterConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->target_width, config.Size("target_hidden_size", c->target_width));
  DSPARK_ASSIGN_OR_RETURN(c->backbone.vocab, config.Size("draft_vocab_size", c->target_vocab));
  DSPARK_ASSIGN_OR_RETURN(c->target_layers, config.Size("num_target_layers", 0));
  return {};
}

// The keys of DSpark's heads (drafters.md §12.2), in DeepSpec's and speculators' files alike.
Status ReadHeads(const JsonSection& config, DrafterConfig* c) {
  const Json* rank = config.Find("markov_rank");
  if (rank && *rank != 0) {
    DSPARK_ASSIGN_OR_RETURN(c->markov_rank, config.Size("markov_rank"));
    DSPARK_ASSIGN_OR_RETURN(const std::string type, config.Text("markov_head_type", "vanilla"));
    if (type == "vanilla") c->markov = MarkovHead::kVanilla;
    if (type == "gated") c->markov = MarkovHead::kGated;
    if (type == "rnn") c->markov = MarkovHead::kRnn;
    if (c->markov == MarkovHead::kNone) return config.Wrong("markov_head_type", "vanilla, gated or rnn");
  }
  DSPARK_ASSIGN_OR_RETURN(c->confidence, config.Flag("enable_confidence_head", false));
  if (!c->confidence) return {};
  DSPARK_ASSIGN_OR_RETURN(c->confidence_with_markov, config.Flag("confidence_head_with_markov", false));
  DSPARK_ASSIGN_OR_RETURN(c->confidence_temperatures, config.Reals("confidence_temperatures"));
  return {};
}

Status ReadMaskToken(const JsonSection& config, DrafterConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, config.TokenIds("mask_token_id"));
  if (ids.size() != 1) return config.Wrong("mask_token_id", "a token id");
  c->mask_token = ids[0];
  return {};
}

// DeepSpec's files hold copies of the target's embedding and head (drafters.md §1.4).
Status ReadDeepSpec(const JsonSection& config, DrafterConfig* c) {
  c->form = "DeepSpec directory";
  c->own_embedding = c->own_head = c->frozen_copies = true;
  c->backbone.qk_norm = true;
  DSPARK_RETURN_IF_ERROR(ReadBackbone(config, c));
  DSPARK_ASSIGN_OR_RETURN(c->target_layers, config.Size("num_target_layers", 0));
  DSPARK_ASSIGN_OR_RETURN(c->taps, config.Numbers("target_layer_ids"));
  return {};
}

Status ReadDeepSpecBlock(const JsonSection& config, DrafterConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadDeepSpec(config, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, config.Size("block_size"));
  DSPARK_RETURN_IF_ERROR(ReadMaskToken(config, c));
  return ReadHeads(config, c);
}

Status ReadDeepSpecEagle3(const JsonSection& config, DrafterConfig* c) {
  c->kind = DrafterKind::kEagle3;
  DSPARK_RETURN_IF_ERROR(ReadDeepSpec(config, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, config.Size("ttt_length"));
  return {};
}

constexpr int kMaxLayers = 1 << 16;  // of a target; no model comes near

// z-lab's default taps for a drafter of n layers (drafters.md §5.5), rounded as Python does.
std::vector<int> DefaultDflashTaps(int target_layers, int n) {
  if (n == 1) return {target_layers / 2};
  std::vector<int> taps(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i)
    taps[size_t(i)] = int(std::nearbyint(1 + double(i) * (target_layers - 4) / (n - 1)));
  return taps;
}

// z-lab's DFlash (drafters.md §5.5): its own keys in dflash_config, block_size there or above.
Status ReadZlab(const JsonSection& config, DrafterConfig* c) {
  c->form = "DFlash directory";
  DSPARK_RETURN_IF_ERROR(ReadBackbone(config, c));
  DSPARK_ASSIGN_OR_RETURN(const JsonSection dflash, config.Object("dflash_config"));
  DSPARK_ASSIGN_OR_RETURN(c->target_layers, config.Size("num_target_layers"));
  DSPARK_ASSIGN_OR_RETURN(c->taps, dflash.Numbers("target_layer_ids"));
  if (c->backbone.layers > c->target_layers || c->target_layers > kMaxLayers) {
    return config.Wrong("num_target_layers", "a number of layers, at least the drafter's own");
  }
  if (c->taps.empty()) c->taps = DefaultDflashTaps(c->target_layers, c->backbone.layers);
  const JsonSection& block = config.Find("block_size") ? config : dflash;
  DSPARK_ASSIGN_OR_RETURN(c->block_size, block.Size("block_size"));
  DSPARK_ASSIGN_OR_RETURN(c->anchor_first, dflash.Flag("sample_from_anchor", false));
  return ReadMaskToken(dflash, c);
}

// Eagle3's three taps where the file does not name them: EAGLE's own low, middle and high layer, which are
// the inputs of layers 2, L/2 and L-3.
Status DefaultEagle3Taps(const JsonSection& config, DrafterConfig* c) {
  const int layers = c->target_layers;
  if (layers == 0) {
    return config.Wrong("num_target_layers",
                        "the target's number of layers, since the file names no layers to tap; add the key");
  }
  c->taps = {1, layers / 2 - 1, layers - 4};
  return {};
}

// SpecForge's Eagle3. Layers in eagle_config are outputs, as SGLang reads them.
Status ReadSpecForge(const JsonSection& config, DrafterConfig* c) {
  c->kind = DrafterKind::kEagle3;
  c->form = "SpecForge directory";
  DSPARK_RETURN_IF_ERROR(ReadBackbone(config, c));
  DSPARK_RETURN_IF_ERROR(ReadTargetSizes(config, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, config.Size("ttt_length", kDefaultDrafts));
  DSPARK_ASSIGN_OR_RETURN(c->norm_before_residual, config.Flag("norm_before_residual", false));
  if (config.Find("eagle_config")) {
    DSPARK_ASSIGN_OR_RETURN(const JsonSection eagle, config.Object("eagle_config"));
    DSPARK_ASSIGN_OR_RETURN(c->taps, eagle.Numbers("eagle_aux_hidden_state_layer_ids"));
  }
  return c->taps.empty() ? DefaultEagle3Taps(config, c) : Status();
}

// speculators writes the backbone's keys only where they differ from transformers' defaults.
Json WithDefaults(const Json& backbone) {
  Json all{
      {"hidden_size", 4096}, {"num_hidden_layers", 32}, {"num_attention_heads", 32}, {"rms_norm_eps", 1e-6}};
  if (backbone.value("model_type", Json()) == "qwen3") {
    all.update({{"vocab_size", 151936},
                {"intermediate_size", 22016},
                {"num_key_value_heads", 32},
                {"head_dim", 128},
                {"max_position_embeddings", 32768}});
  } else {
    all.update({{"vocab_size", 32000}, {"intermediate_size", 11008}, {"max_position_embeddings", 2048}});
  }
  all.update(backbone);
  return all;
}

// Layer ids of speculators are inputs, as vLLM reads them: 0 is the embedding.
Status ReadInputIds(const JsonSection& config, const char* key, DrafterConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->taps, config.Numbers(key));
  for (int& tap : c->taps) --tap;
  return {};
}

Status ReadSpeculatorsBlock(const JsonSection& config, bool dspark, DrafterConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(c->block_size, config.Size("block_size"));
  DSPARK_ASSIGN_OR_RETURN(c->anchor_first, config.Flag("sample_from_anchor", dspark));
  DSPARK_RETURN_IF_ERROR(ReadInputIds(config, "aux_hidden_state_layer_ids", c));
  DSPARK_RETURN_IF_ERROR(ReadMaskToken(config, c));
  return dspark ? ReadHeads(config, c) : Status();
}

Status ReadSpeculatorsEagle3(const JsonSection& config, DrafterConfig* c) {
  c->kind = DrafterKind::kEagle3;
  for (const char* key : {"norm_before_fc", "fc_norm", "norm_output"}) {
    DSPARK_ASSIGN_OR_RETURN(const bool more, config.Flag(key, false));
    if (more) return config.Wrong(key, "false; this variant is not supported");
  }
  DSPARK_ASSIGN_OR_RETURN(c->norm_before_residual, config.Flag("norm_before_residual", false));
  c->block_size = kDefaultDrafts;
  DSPARK_RETURN_IF_ERROR(ReadInputIds(config, "eagle_aux_hidden_state_layer_ids", c));
  return c->taps.empty() ? DefaultEagle3Taps(config, c) : Status();
}

Status ReadSpeculators(const JsonSection& config, DrafterConfig* c) {
  c->form = "speculators directory";
  DSPARK_ASSIGN_OR_RETURN(const JsonSection backbone, config.Object("transformer_layer_config"));
  const Json all = WithDefaults(backbone.json);
  DSPARK_RETURN_IF_ERROR(ReadBackbone({all, backbone.path}, c));
  DSPARK_RETURN_IF_ERROR(ReadTargetSizes(config, c));
  DSPARK_ASSIGN_OR_RETURN(const std::string type, config.Text("speculators_model_type", ""));
  if (type == "eagle3") return ReadSpeculatorsEagle3(config, c);
  if (type == "dflash" || type == "dspark") return ReadSpeculatorsBlock(config, type == "dspark", c);
  return config.Wrong("speculators_model_type", "dspark, dflash or eagle3");
}

// DeepSeek-V3's multi-token prediction (drafters.md §11) beside its target's own configuration.
Status ReadMtp(const JsonSection& config, DrafterConfig* c) {
  c->kind = DrafterKind::kMtp;
  c->form = "MTP directory";
  DSPARK_RETURN_IF_ERROR(ReadBackbone(config, c));
  DSPARK_ASSIGN_OR_RETURN(const int more, config.Size("num_nextn_predict_layers"));
  if (more != 1) return config.Wrong("num_nextn_predict_layers", "1");
  c->target_layers = std::exchange(c->backbone.layers, 1);
  DSPARK_ASSIGN_OR_RETURN(c->block_size, config.Size("ttt_length", kDefaultDrafts));
  return {};
}

// Drafters for a target that does not run here yet.
Status RefuseGemma4(const JsonSection& config, DrafterConfig*) {
  return config.Wrong("architectures", "a drafter for Llama or Qwen3; Gemma4 targets are not supported yet");
}

struct Form {
  std::string_view architecture;  // config.json's architectures[0]
  Status (*read)(const JsonSection& config, DrafterConfig* c);
};

constexpr Form kForms[] = {{"Qwen3DSparkModel", ReadDeepSpecBlock},
                           {"Qwen3Eagle3Model", ReadDeepSpecEagle3},
                           {"Eagle3DraftModel", ReadDeepSpecEagle3},
                           {"DFlashDraftModel", ReadZlab},
                           {"LlamaForCausalLMEagle3", ReadSpecForge},
                           {"Qwen3MTPModel", ReadMtp},
                           {"LlamaMTPModel", ReadMtp},
                           {"Gemma4DSparkModel", RefuseGemma4},
                           {"Gemma4Eagle3Model", RefuseGemma4}};

constexpr Form kSpeculatorsForm = {"", ReadSpeculators};

// Null when it is no drafter.
const Form* FindForm(const JsonSection& config) {
  if (config.Find("speculators_model_type")) return &kSpeculatorsForm;
  const Json* names = config.Find("architectures");
  if (!names || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) return nullptr;
  const auto* form = std::ranges::find(kForms, (*names)[0].get<std::string>(), &Form::architecture);
  return form == std::end(kForms) ? nullptr : form;
}

HfNaming NamingOf(const DrafterConfig& c) {
  const auto name = [kind = c.kind, layers = c.target_layers](std::string_view hf_name) {
    if (kind == DrafterKind::kMtp) return MtpTensorName(hf_name, layers);
    // What d2t says too, and what only training needs.
    constexpr std::string_view kUnused[] = {"t2d", "verifier_lm_head.weight", "verifier_norm.weight"};
    return std::ranges::count(kUnused, hf_name) ? std::string(kLeftOut) : DrafterTensorName(hf_name);
  };
  return {name, "drafter"};
}

}  // namespace

Result<DrafterFiles> OpenDrafterDirectory(const std::string& dir) {
  DrafterParts parts{
      .path = dir, .config = dir + "/config.json", .files = {}, .tensors = {}, .offsets = true};
  if (!FileExists(parts.config)) return NoConfigError(dir, "drafter");
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(parts.config));
  const JsonSection config{json, parts.config};
  const Form* form = FindForm(config);
  if (!form) return config.Wrong("architectures", "a drafter's; see docs/formats.md");
  DrafterConfig c;
  DSPARK_RETURN_IF_ERROR(form->read(config, &c));
  DSPARK_ASSIGN_OR_RETURN(HfTensors mapped, MapHfTensors(dir, NamingOf(c)));
  parts.files = std::move(mapped.files);
  parts.tensors = std::move(mapped.tensors);
  return AssembleDrafter(std::move(c), std::move(parts));
}

bool DirectoryLooksLikeDrafter(const std::string& dir) {
  const std::string path = dir + "/config.json";
  if (!FileExists(path)) return false;
  const auto json = ReadJsonObject(path);
  return json.ok() && FindForm({*json, path}) != nullptr;
}

}  // namespace dspark

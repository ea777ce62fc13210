#include "load/drafter_hf.h"

#include <utility>

#include "load/drafter_tensors.h"
#include "load/hf_config.h"
#include "load/hf_weights.h"
#include "load/json_file.h"
#include "load/printable.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

// The backbone's own keys, and what follows from them: by default the target has its width and vocabulary.
Status ReadBackbone(const JsonSection& config, DrafterConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadDecoderConfig(config, &c->backbone));
  DSPARK_ASSIGN_OR_RETURN(const std::string type, config.Text("model_type", ""));
  c->backbone.architecture = type;
  c->backbone.tied_embeddings = false;
  c->target_vocab = c->backbone.vocab;
  DSPARK_ASSIGN_OR_RETURN(c->target_width, config.Size("target_hidden_size", c->backbone.d_model));
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
  c->own_embedding = c->own_head = true;
  c->backbone.qk_norm = true;
  DSPARK_RETURN_IF_ERROR(ReadBackbone(config, c));
  DSPARK_ASSIGN_OR_RETURN(c->target_layers, config.Size("num_target_layers"));
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
                           {"Gemma4DSparkModel", RefuseGemma4},
                           {"Gemma4Eagle3Model", RefuseGemma4}};

// Null when it is no drafter.
const Form* FindForm(const JsonSection& config) {
  const Json* names = config.Find("architectures");
  if (!names || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) return nullptr;
  const auto name = (*names)[0].get<std::string>();
  for (const Form& form : kForms) {
    if (form.architecture == name) return &form;
  }
  return nullptr;
}

}  // namespace

Result<DrafterFiles> OpenDrafterDirectory(const std::string& dir) {
  const std::string path = dir + "/config.json";
  DSPARK_ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  const JsonSection config{json, path};
  const Form* form = FindForm(config);
  if (!form) return config.Wrong("architectures", "a drafter's; see docs/formats.md");
  DrafterFiles files;
  files.path = dir;
  DrafterConfig& c = files.config;
  DSPARK_RETURN_IF_ERROR(form->read(config, &c));
  DSPARK_ASSIGN_OR_RETURN(HfTensors mapped, MapHfTensors(dir, {DrafterTensorName, "drafter"}));
  DSPARK_RETURN_IF_ERROR(CheckDrafterConfig(c, path));
  auto weights = std::make_unique<MappedWeights>(dir, std::move(mapped.files), std::move(mapped.tensors));
  DSPARK_RETURN_IF_ERROR(CheckDrafterTensors(c, *weights));
  files.weights = std::move(weights);
  return files;
}

bool DirectoryLooksLikeDrafter(const std::string& dir) {
  const std::string path = dir + "/config.json";
  if (!FileExists(path)) return false;
  const auto json = ReadJsonObject(path);
  return json.ok() && FindForm({*json, path}) != nullptr;
}

}  // namespace dspark

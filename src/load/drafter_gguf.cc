#include "load/drafter_gguf.h"

#include <algorithm>
#include <utility>

#include "load/drafter_tensors.h"
#include "load/gguf.h"
#include "load/gguf_model.h"
#include "load/printable.h"

namespace dspark {
namespace {

std::string Key(const DrafterConfig& c, std::string_view name) {
  return fmt::format("{}.{}", c.backbone.architecture, name);
}

// Layers to tap, under the first of `keys` that is there; `shift` turns the file's ids into outputs.
Status ReadTaps(const Gguf& gguf, std::initializer_list<std::string> keys, int shift, DrafterConfig* c) {
  const auto* key =
      std::ranges::find_if(keys, [&](const std::string& k) { return gguf.FindKey(k) != nullptr; });
  if (key == keys.end()) key = keys.begin();  // whose absence Get reports
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, gguf.Get<std::vector<int64_t>>(*key));
  for (const int64_t id : ids) {
    if (id < 0 || id > kMaxModelSize) {
      return MakeError("{}: metadata key {} holds {}, not a layer; the file is damaged", gguf.path, *key, id);
    }
    c->taps.push_back(int(id) + shift);
  }
  return {};
}

// The ids drafts are read as: rows of the tensors that have one for each, else what the metadata says.
Status ReadVocabularies(const Gguf& gguf, DrafterConfig* c) {
  for (const char* name : {"token_embd.weight", "markov_w1.weight"}) {
    const TensorView* tensor = gguf.FindTensor(name);
    if (tensor && c->target_vocab == 0) c->target_vocab = int(std::min<int64_t>(tensor->shape[0], INT32_MAX));
  }
  if (c->target_vocab == 0 && gguf.FindKey(Key(*c, "vocab_size"))) {
    DSPARK_ASSIGN_OR_RETURN(c->target_vocab, GgufSize(gguf, Key(*c, "vocab_size")));
  }
  if (c->target_vocab == 0) {
    const GgufValue* tokens = gguf.FindKey("tokenizer.ggml.tokens");
    if (!tokens) {
      return MakeError(
          "{}: nothing says how large the vocabulary is; convert the drafter again with its tokenizer",
          gguf.path);
    }
    c->target_vocab = int(std::min<uint64_t>(tokens->count, INT32_MAX));
  }
  const TensorView* head = gguf.FindTensor("output.weight");
  c->backbone.vocab = head ? int(std::min<int64_t>(head->shape[0], INT32_MAX)) : c->target_vocab;
  return {};
}

Status ReadCommon(const Gguf& gguf, DrafterConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadDecoderKeys(gguf, &c->backbone));
  DSPARK_RETURN_IF_ERROR(ReadVocabularies(gguf, c));
  DSPARK_ASSIGN_OR_RETURN(const int64_t window, gguf.GetOr<int64_t>(Key(*c, "attention.sliding_window"), 0));
  if (window != 0) {
    return MakeError("{}: attention over a window of {} positions; only full attention is supported",
                     gguf.path, window);
  }
  DSPARK_ASSIGN_OR_RETURN(c->target_width,
                          GgufSize(gguf, Key(*c, "target_hidden_size"), c->backbone.d_model));
  DSPARK_ASSIGN_OR_RETURN(c->target_layers, GgufSize(gguf, Key(*c, "target_block_count"), 0));
  return {};
}

Status ReadMaskToken(const Gguf& gguf, const std::string& key, DrafterConfig* c) {
  const char* fallback = "tokenizer.ggml.mask_token_id";
  DSPARK_ASSIGN_OR_RETURN(const std::optional<int32_t> id,
                          GgufTokenId(gguf, gguf.FindKey(key) ? key : fallback));
  if (!id) return MakeError("{}: metadata key {} is missing; convert the drafter again", gguf.path, fallback);
  c->mask_token = *id;
  return {};
}

// DSpark's heads are known by their tensors.
void FindHeads(const Gguf& gguf, DrafterConfig* c) {
  if (const TensorView* w1 = gguf.FindTensor("markov_w1.weight")) {
    c->markov = MarkovHead::kVanilla;
    c->markov_rank = int(std::min<int64_t>(w1->shape.back(), kMaxModelSize));
  }
  if (gguf.FindTensor("markov_gate.weight")) c->markov = MarkovHead::kGated;
  if (gguf.FindTensor("markov_joint.weight")) c->markov = MarkovHead::kRnn;
  const TensorView* confidence = gguf.FindTensor("conf_proj.weight");
  c->confidence = confidence != nullptr;
  c->confidence_with_markov = confidence && confidence->shape.back() != c->backbone.d_model;
}

Status ReadTemperatures(const Gguf& gguf, DrafterConfig* c) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<double> temperatures,
                          gguf.GetOr<std::vector<double>>(Key(*c, "confidence_temperatures"), {}));
  c->confidence_temperatures.assign(temperatures.begin(), temperatures.end());
  return {};
}

// llama.cpp's `dflash`, and `dspark` as forks write it: target_layers are inputs, target_layer_ids outputs.
Status ReadDflash(const Gguf& gguf, DrafterConfig* c) {
  DSPARK_RETURN_IF_ERROR(ReadCommon(gguf, c));
  const bool outputs = !gguf.FindKey(Key(*c, "target_layers")) && gguf.FindKey(Key(*c, "target_layer_ids"));
  DSPARK_RETURN_IF_ERROR(
      ReadTaps(gguf, {Key(*c, "target_layers"), Key(*c, "target_layer_ids")}, outputs ? 0 : -1, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, GgufSize(gguf, Key(*c, "block_size")));
  DSPARK_ASSIGN_OR_RETURN(c->anchor_first, gguf.GetOr<bool>(Key(*c, "sample_from_anchor"), true));
  FindHeads(gguf, c);
  DSPARK_RETURN_IF_ERROR(ReadTemperatures(gguf, c));
  return ReadMaskToken(gguf, Key(*c, "mask_token_id"), c);
}

// ik_llama.cpp's `dflash-draft`: z-lab's DFlash, layer ids as in its config.json.
Status ReadDflashDraft(const Gguf& gguf, DrafterConfig* c) {
  c->anchor_first = false;
  DSPARK_RETURN_IF_ERROR(ReadCommon(gguf, c));
  DSPARK_RETURN_IF_ERROR(ReadTaps(gguf, {Key(*c, "dflash.target_layer_ids")}, 0, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, GgufSize(gguf, Key(*c, "dflash.block_size")));
  if (const std::string key = Key(*c, "dflash.n_target_features"); gguf.FindKey(key) && !c->taps.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const int features, GgufSize(gguf, key));
    c->target_width = features / int(c->taps.size());
  }
  return ReadMaskToken(gguf, Key(*c, "dflash.mask_token_id"), c);
}

// llama.cpp's `eagle3`: q and k as in its Llama files, for interleaved rope.
Status ReadEagle3(const Gguf& gguf, DrafterConfig* c) {
  c->kind = DrafterKind::kEagle3;
  c->backbone.rope_interleaved = true;
  DSPARK_RETURN_IF_ERROR(ReadCommon(gguf, c));
  DSPARK_RETURN_IF_ERROR(ReadTaps(gguf, {Key(*c, "target_layers"), Key(*c, "extract_layers")}, -1, c));
  DSPARK_ASSIGN_OR_RETURN(c->block_size, GgufSize(gguf, Key(*c, "block_size"), kDefaultDrafts));
  DSPARK_ASSIGN_OR_RETURN(c->norm_before_residual, gguf.GetOr<bool>(Key(*c, "norm_before_residual"), false));
  return {};
}

struct Form {
  std::string_view architecture;  // general.architecture, and the first part of the other keys
  Status (*read)(const Gguf& gguf, DrafterConfig* c);
};

constexpr Form kForms[] = {{"dflash", ReadDflash},
                           {"dspark", ReadDflash},
                           {"dflash-draft", ReadDflashDraft},
                           {"eagle3", ReadEagle3}};

const Form* FindForm(const Gguf& gguf) {
  const auto architecture = gguf.GetOr<std::string_view>("general.architecture", "");
  if (!architecture) return nullptr;
  const auto* form = std::ranges::find(kForms, *architecture, &Form::architecture);
  return form == std::end(kForms) ? nullptr : form;
}

// ik_llama.cpp's names where they are not llama.cpp's.
std::string TensorName(const std::string& name) {
  constexpr std::string_view kNorm = "post_attention_norm.weight";
  if (name == "dflash_fc.weight") return "fc.weight";
  if (name == "dflash_hidden_norm.weight") return "enc.output_norm.weight";
  if (name.ends_with(kNorm)) return name.substr(0, name.size() - kNorm.size()) + "ffn_norm.weight";
  return name;
}

}  // namespace

Result<DrafterFiles> OpenDrafterGguf(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(GgufFile opened, OpenGgufFile(path));
  const Gguf& gguf = opened.gguf;
  const Form* form = FindForm(gguf);
  if (!form) {
    const auto architecture = gguf.GetOr<std::string_view>("general.architecture", "");
    return MakeError(
        "{}: architecture {} is not a drafter's; drafters are dflash, dspark, dflash-draft and eagle3", path,
        architecture ? Printable(*architecture) : "(not a text)");
  }
  DrafterConfig c;
  c.backbone.architecture = form->architecture;
  c.form = fmt::format("GGUF {}", form->architecture);
  DSPARK_RETURN_IF_ERROR(form->read(gguf, &c));
  DrafterParts parts{.path = path, .config = path, .files = {}, .tensors = {}, .offsets = false};
  for (const TensorView& tensor : gguf.tensors) {
    if (!parts.tensors.emplace(TensorName(tensor.name), tensor).second) {
      return MakeError("{}: tensor {} is there twice under two names; the file is damaged", path,
                       Printable(tensor.name));
    }
  }
  parts.files.push_back(std::move(opened.file));
  return AssembleDrafter(std::move(c), std::move(parts));
}

bool GgufLooksLikeDrafter(const std::string& path) {
  const auto opened = OpenGgufFile(path);
  return opened.ok() && FindForm(opened->gguf) != nullptr;
}

}  // namespace dspark

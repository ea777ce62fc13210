// A drafter as GGUF: llama.cpp's `dflash` (DSpark too) and `eagle3`.
#include <filesystem>

#include "apps/drafter_output.h"
#include "apps/write_drafter.h"
#include "load/drafter_tensors.h"

namespace dspark {
namespace {

Status CheckGgufHolds(const DrafterFiles& drafter) {
  const DrafterConfig& c = drafter.config;
  const auto fail = [&](std::string_view what) {
    return MakeError("{}: {}; no GGUF of llama.cpp can hold that", drafter.path, what);
  };
  if (c.kind == DrafterKind::kMtp) return fail("an MTP layer apart from its model");
  if (c.fc_bias) return fail("a bias on fc");
  if (c.kind == DrafterKind::kBlock && !c.backbone.qk_norm)
    return fail("a block drafter without norms on q and k");
  if (c.kind == DrafterKind::kEagle3 && c.backbone.qk_norm)
    return fail("an Eagle3 drafter with norms on q and k");
  if (c.kind == DrafterKind::kEagle3 && c.taps.size() != 3) {
    return fail(fmt::format("an Eagle3 drafter with {} taps instead of 3", c.taps.size()));
  }
  return {};
}

uint32_t FileType(TensorType type) {  // llama.cpp's enum llama_ftype
  if (type == TensorType::kF16) return 1;
  if (type == TensorType::kQ4_0) return 2;
  if (type == TensorType::kQ8_0) return 7;
  return 0;
}

void AddDecoderKeys(const DrafterConfig& c, const std::string& a, GgufKeys* keys) {
  const ModelConfig& b = c.backbone;
  keys->U32(a + "block_count", uint32_t(b.layers));
  keys->U32(a + "context_length", uint32_t(b.max_context));
  keys->U32(a + "embedding_length", uint32_t(b.d_model));
  keys->U32(a + "feed_forward_length", uint32_t(b.d_ffn));
  keys->U32(a + "attention.head_count", uint32_t(b.heads));
  keys->U32(a + "attention.head_count_kv", uint32_t(b.kv_heads));
  keys->U32(a + "attention.key_length", uint32_t(b.head_dim));
  keys->U32(a + "attention.value_length", uint32_t(b.head_dim));
  keys->F32(a + "attention.layer_norm_rms_epsilon", b.rms_eps);
  keys->F32(a + "rope.freq_base", b.rope_theta);
  keys->U32(a + "rope.dimension_count", uint32_t(b.head_dim));
  keys->U32(a + "vocab_size", uint32_t(c.target_vocab));
}

std::string NameOf(const std::string& drafter) {
  std::filesystem::path path(drafter);
  if (!path.has_filename()) path = path.parent_path();  // "name/"
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

GgufKeys KeysOf(const DrafterFiles& drafter, const DrafterWriteOptions& options) {
  const DrafterConfig& c = drafter.config;
  const bool eagle3 = c.kind == DrafterKind::kEagle3;
  const std::string architecture = eagle3 ? "eagle3" : "dflash", a = architecture + ".";
  GgufKeys keys;
  keys.String("general.architecture", architecture);
  keys.String("general.type", "model");
  keys.String("general.name", NameOf(drafter.path));
  keys.U32("general.file_type", FileType(options.type));
  keys.U32("general.quantization_version", 2);
  AddDecoderKeys(c, a, &keys);
  keys.U32(a + "block_size", uint32_t(c.block_size));
  std::vector<int32_t> inputs;  // llama.cpp counts layers' inputs
  for (const int tap : c.taps) inputs.push_back(tap + 1);
  keys.I32s(a + "target_layers", inputs);
  if (c.target_layers > 0) keys.U32(a + "target_block_count", uint32_t(c.target_layers));
  keys.U32(a + "target_hidden_size", uint32_t(c.target_width));
  if (eagle3) {
    keys.I32s(a + "extract_layers", inputs);  // the key's name in older versions
    keys.Bool(a + "norm_before_residual", c.norm_before_residual);
  } else {
    keys.Bool(a + "sample_from_anchor", c.anchor_first);
    keys.Bool(a + "has_confidence_head", c.confidence);
    if (!c.confidence_temperatures.empty())
      keys.F32s(a + "confidence_temperatures", c.confidence_temperatures);
    keys.U32("tokenizer.ggml.mask_token_id", uint32_t(c.mask_token));
  }
  if (!options.tokenizer) return keys;
  for (const auto& [key, value] : options.tokenizer->metadata) {
    if (key.starts_with("tokenizer.") && key != "tokenizer.ggml.mask_token_id") keys.Copy(key, value);
  }
  return keys;
}

// The shapes to write: without an embedding and a head that the target has as well.
TensorShapes GgufShapes(const DrafterFiles& drafter, const DrafterWriteOptions& options) {
  const DrafterConfig& c = drafter.config;
  TensorShapes shapes = DrafterShapes(c);
  const auto end = [&](const char* name, bool forced, bool own, int64_t rows) {
    const TensorView* of_target = OfTarget(options.target, name);
    const bool kept =
        own && (of_target ? !SameValues(*drafter.weights->Find(name), *of_target) : !c.frozen_copies);
    if (forced || kept) {
      shapes[name] = {rows, c.backbone.d_model};
    } else {
      shapes.erase(name);
    }
  };
  end("token_embd.weight", options.with_embedding, c.own_embedding, c.target_vocab);
  end("output.weight", options.with_head, c.own_head, c.backbone.vocab);
  return shapes;
}

// llama.cpp stores matrices alone in small types.
TensorType TypeOf(const std::vector<int64_t>& shape, TensorType asked) {
  if (shape.size() == 1 || shape[0] == 1) return TensorType::kF32;
  return shape.back() % InfoOf(asked).block_values == 0 ? asked : TensorType::kF16;
}

template <class T>
TensorView ViewOf(const std::vector<T>& values, TensorType type) {
  return {"",
          type,
          {int64_t(values.size())},
          {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)}};
}

}  // namespace

Status WriteDrafterGguf(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                        const std::string& path) {
  const DrafterConfig& c = drafter.config;
  DSPARK_RETURN_IF_ERROR(CheckGgufHolds(drafter));
  const auto type_of = [&](const std::vector<int64_t>& shape) { return TypeOf(shape, options.type); };
  DSPARK_ASSIGN_OR_RETURN(std::vector<OutputTensor> plan,
                          PlanTensors(drafter, options.target, GgufShapes(drafter, options), type_of));
  for (OutputTensor& tensor : plan) {
    const std::string_view name = tensor.header.name;
    const bool roped = name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
    // As llama.cpp's converter stores this architecture.
    if (c.kind == DrafterKind::kEagle3 && !c.backbone.rope_interleaved && roped) {
      tensor.interleave_heads_of = c.backbone.head_dim;
    }
  }
  // Two tensors that are no weights: ids of a reduced vocabulary, and scaled rope.
  const std::vector<int64_t> ids(c.draft_to_target.begin(), c.draft_to_target.end());
  const TensorView ids_view = ViewOf(ids, TensorType::kI64);
  const TensorView rope_view = ViewOf(c.backbone.rope_freq_divisors, TensorType::kF32);
  if (!ids.empty()) plan.push_back({{"d2t", TensorType::kI64, ids_view.shape}, &ids_view});
  if (rope_view.shape[0] > 0)
    plan.push_back({{"rope_freqs.weight", TensorType::kF32, rope_view.shape}, &rope_view});

  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(GgufHeader(KeysOf(drafter, options), HeadersOf(plan)));
  for (const OutputTensor& tensor : plan) {
    WriteTensor(tensor, &file);
    file.Write(std::string(size_t(GgufPadded(tensor.header.Bytes()) - tensor.header.Bytes()), '\0'));
  }
  return file.Commit();
}

}  // namespace dspark

#include "model/weights.h"

#include <algorithm>
#include <atomic>

#include "load/printable.h"

namespace dspark {
namespace {

struct MatrixSlot {
  std::string name;
  int n, k;
  PackedMatrix* matrix;
  bool vocabulary = false;  // embedding or head
  const TensorView* tensor = nullptr;
  WeightFormat format = WeightFormat::kF32;  // packed
};

struct VectorSlot {
  std::string name;
  int n;
  std::vector<float>* values;
  const TensorView* tensor = nullptr;
};

// Every tensor of a dense transformer and where it goes, matrices in the order a pass reads them.
struct Slots {
  std::vector<MatrixSlot> matrices;
  std::vector<VectorSlot> vectors;

  size_t StorageBytes() const {
    size_t bytes = 0;
    for (const MatrixSlot& m : matrices) bytes += PackedMatrix::StorageBytes(m.n, m.k, m.format);
    return bytes;
  }
};

Slots SlotsOf(const ModelConfig& c, ModelWeights* w) {
  Slots slots;
  w->layers.resize(c.layers);
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  for (int i = 0; i < c.layers; ++i) {
    LayerWeights& layer = w->layers[i];
    const auto name = [i](const char* tensor) { return fmt::format("blk.{}.{}.weight", i, tensor); };
    slots.vectors.push_back({name("attn_norm"), c.d_model, &layer.attn_norm});
    slots.vectors.push_back({name("ffn_norm"), c.d_model, &layer.ffn_norm});
    if (c.qk_norm) {
      slots.vectors.push_back({name("attn_q_norm"), c.head_dim, &layer.q_norm});
      slots.vectors.push_back({name("attn_k_norm"), c.head_dim, &layer.k_norm});
    }
    slots.matrices.push_back({name("attn_q"), q, c.d_model, &layer.wq});
    slots.matrices.push_back({name("attn_k"), kv, c.d_model, &layer.wk});
    slots.matrices.push_back({name("attn_v"), kv, c.d_model, &layer.wv});
    slots.matrices.push_back({name("attn_output"), c.d_model, q, &layer.wo});
    slots.matrices.push_back({name("ffn_gate"), c.d_ffn, c.d_model, &layer.gate});
    slots.matrices.push_back({name("ffn_up"), c.d_ffn, c.d_model, &layer.up});
    slots.matrices.push_back({name("ffn_down"), c.d_model, c.d_ffn, &layer.down});
  }
  slots.vectors.push_back({"output_norm.weight", c.d_model, &w->output_norm});
  if (!c.tied_embeddings) slots.matrices.push_back({"output.weight", c.vocab, c.d_model, &w->output, true});
  slots.matrices.push_back({"token_embd.weight", c.vocab, c.d_model, &w->embedding, true});
  return slots;
}

Result<const TensorView*> Find(const TensorSource& source, const std::string& name,
                               const std::vector<int64_t>& shape) {
  const TensorView* tensor = source.Find(name);
  if (!tensor) {
    return MakeError("{}: tensor {} is missing; the file is incomplete or of another architecture",
                     source.path(), name);
  }
  if (tensor->shape != shape) {
    return MakeError(
        "{}: tensor {} has shape [{}], expected [{}] from the model's sizes; the file is inconsistent",
        source.path(), tensor->name, fmt::join(tensor->shape, ", "), fmt::join(shape, ", "));
  }
  if (!InfoOf(tensor->type).dequantize) {
    return MakeError("{}: tensor {} holds {}, not weights; the file is inconsistent", source.path(),
                     tensor->name, InfoOf(tensor->type).name);
  }
  return tensor;
}

// What a matrix is packed as: see PackWeights.
Result<WeightFormat> FormatOf(const MatrixSlot& slot, std::optional<WeightFormat> asked,
                              const std::string& path) {
  const WeightFormat own = PackedFormatOf(slot.tensor->type);
  if (!asked || *asked == own) return own;
  if (!IsQuantized(*asked)) return *asked;
  if (slot.k % 32 != 0) return own;
  if (*asked == WeightFormat::kInt8 || slot.vocabulary) return WeightFormat::kInt8;
  if (own == WeightFormat::kInt8) {
    return MakeError(
        "{}: tensor {} is {}; to 4 bits it would be rounded twice: take a file in F16, BF16 or F32, or "
        "weights "
        "int8",
        path, Printable(slot.tensor->name), InfoOf(slot.tensor->type).name);
  }
  return IsQuantized(own) ? own : *asked;
}

// The slots of `weights`, each with its tensor and what it is packed as.
Result<Slots> BindSlots(const ModelFiles& files, std::optional<WeightFormat> asked, ModelWeights* weights) {
  const TensorSource& source = *files.weights;
  Slots slots = SlotsOf(files.config, weights);
  for (VectorSlot& slot : slots.vectors) {
    DSPARK_ASSIGN_OR_RETURN(slot.tensor, Find(source, slot.name, {slot.n}));
  }
  for (MatrixSlot& slot : slots.matrices) {
    DSPARK_ASSIGN_OR_RETURN(slot.tensor, Find(source, slot.name, {slot.n, slot.k}));
    DSPARK_ASSIGN_OR_RETURN(slot.format, FormatOf(slot, asked, source.path()));
  }
  return slots;
}

Error NotFinite(const std::string& path, const TensorView& tensor) {
  return MakeError("{}: tensor {} holds NaN or infinity; the file is damaged, get it anew", path,
                   Printable(tensor.name));
}

// Fills one matrix on all workers, then gives its pages of the file back. False when a value is not finite.
bool Pack(const TensorSource& source, const MatrixSlot& slot, ThreadPool& pool) {
  const TensorView& tensor = *slot.tensor;
  const size_t row_bytes = tensor.bytes.size() / slot.n;
  const bool as_it_is = PackedFormatOf(tensor.type) == slot.format;
  std::atomic<bool> finite = true;
  pool.Run([&](Worker& worker) {
    const Range groups = worker.Share((slot.n + 15) / 16);
    std::vector<float> values(as_it_is ? 0 : slot.k);
    for (int g = groups.begin; g < groups.end; ++g) {
      const uint8_t* bytes = tensor.bytes.data() + size_t(g) * 16 * row_bytes;
      const int rows = std::min(16, slot.n - g * 16);
      if (!AllFinite(tensor.type, bytes, int64_t(rows) * slot.k))
        finite.store(false, std::memory_order_relaxed);
      if (as_it_is) {
        slot.matrix->SetRowGroup(g, tensor.type, bytes, row_bytes, rows);
        continue;
      }
      for (int r = 0; r < rows; ++r) {
        Dequantize(tensor.type, bytes + size_t(r) * row_bytes, slot.k, values.data());
        slot.matrix->SetRowFromFloats(g * 16 + r, values.data());
      }
    }
  });
  source.Release(tensor);
  return finite;
}

}  // namespace

std::optional<WeightFormat> WeightFormatFromName(std::string_view name) {
  if (name == "f32") return WeightFormat::kF32;
  if (name == "bf16") return WeightFormat::kBf16;
  if (name == "int8") return WeightFormat::kInt8;
  // Scale and min, not scale alone: on the weights of trained models the squared error is 0.66 (SmolLM2's
  // embedding) to 0.86 (a small Qwen3's matrices) of the other's, and that Qwen3's KL 0.0023 instead of
  // 0.0038, for 5 bits a weight instead of 4.5.
  if (name == "int4") return WeightFormat::kInt4Min;
  return {};
}

Result<size_t> PackedWeightBytes(const ModelFiles& files, std::optional<WeightFormat> asked) {
  ModelWeights nowhere;
  DSPARK_ASSIGN_OR_RETURN(const Slots slots, BindSlots(files, asked, &nowhere));
  return slots.StorageBytes();
}

Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool,
                                 std::optional<WeightFormat> asked) {
  const TensorSource& source = *files.weights;
  ModelWeights weights;
  DSPARK_ASSIGN_OR_RETURN(const Slots slots, BindSlots(files, asked, &weights));
  for (const VectorSlot& slot : slots.vectors) {
    slot.values->resize(slot.n);
    if (!AllFinite(slot.tensor->type, slot.tensor->bytes.data(), slot.n)) {
      return NotFinite(source.path(), *slot.tensor);
    }
    Dequantize(slot.tensor->type, slot.tensor->bytes.data(), slot.n, slot.values->data());
  }
  weights.storage = Buffer<uint8_t>(slots.StorageBytes());
  size_t offset = 0;
  for (const MatrixSlot& slot : slots.matrices) {
    *slot.matrix = PackedMatrix(slot.n, slot.k, slot.format, weights.storage.data() + offset);
    offset += slot.matrix->Bytes();
    if (!Pack(source, slot, pool)) return NotFinite(source.path(), *slot.tensor);
  }
  for (size_t i = 0; i < slots.matrices.size(); ++i) {
    slots.matrices[i].matrix->SetNext(*slots.matrices[(i + 1) % slots.matrices.size()].matrix);
  }
  return weights;
}

}  // namespace dspark

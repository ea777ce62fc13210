#include "model/weights.h"

#include <algorithm>

namespace dspark {
namespace {

struct MatrixSlot {
  std::string name;
  int n, k;
  PackedMatrix* matrix;
  const TensorView* tensor = nullptr;
};

struct VectorSlot {
  std::string name;
  int n;
  std::vector<float>* values;
};

// Every tensor of a dense transformer and where it goes, matrices in the order a pass reads them.
struct Slots {
  std::vector<MatrixSlot> matrices;
  std::vector<VectorSlot> vectors;
};

Slots SlotsOf(const ModelConfig& c, ModelWeights* w) {
  Slots slots;
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  for (int i = 0; i < c.layers; ++i) {
    LayerWeights& layer = w->layers[i];
    const auto name = [i](const char* tensor) { return fmt::format("blk.{}.{}.weight", i, tensor); };
    slots.vectors.push_back({name("attn_norm"), c.d_model, &layer.attn_norm});
    slots.vectors.push_back({name("ffn_norm"), c.d_model, &layer.ffn_norm});
    slots.matrices.push_back({name("attn_q"), q, c.d_model, &layer.wq});
    slots.matrices.push_back({name("attn_k"), kv, c.d_model, &layer.wk});
    slots.matrices.push_back({name("attn_v"), kv, c.d_model, &layer.wv});
    slots.matrices.push_back({name("attn_output"), c.d_model, q, &layer.wo});
    slots.matrices.push_back({name("ffn_gate"), c.d_ffn, c.d_model, &layer.gate});
    slots.matrices.push_back({name("ffn_up"), c.d_ffn, c.d_model, &layer.up});
    slots.matrices.push_back({name("ffn_down"), c.d_model, c.d_ffn, &layer.down});
  }
  slots.vectors.push_back({"output_norm.weight", c.d_model, &w->output_norm});
  if (!c.tied_embeddings) slots.matrices.push_back({"output.weight", c.vocab, c.d_model, &w->output});
  slots.matrices.push_back({"token_embd.weight", c.vocab, c.d_model, &w->embedding});
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

// Fills one matrix on all workers, then gives its pages of the file back.
void Pack(const TensorSource& source, const MatrixSlot& slot, ThreadPool& pool) {
  const TensorView& tensor = *slot.tensor;
  const size_t row_bytes = tensor.bytes.size() / slot.n;
  pool.Run([&](Worker& worker) {
    const Range groups = worker.Share((slot.n + 15) / 16);
    for (int g = groups.begin; g < groups.end; ++g) {
      slot.matrix->SetRowGroup(g, tensor.type, tensor.bytes.data() + size_t(g) * 16 * row_bytes, row_bytes,
                               std::min(16, slot.n - g * 16));
    }
  });
  source.Release(tensor);
}

}  // namespace

Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool) {
  const TensorSource& source = *files.weights;
  ModelWeights weights;
  weights.layers.resize(files.config.layers);
  Slots slots = SlotsOf(files.config, &weights);
  for (const VectorSlot& slot : slots.vectors) {
    DSPARK_ASSIGN_OR_RETURN(const TensorView* tensor, Find(source, slot.name, {slot.n}));
    slot.values->resize(slot.n);
    Dequantize(tensor->type, tensor->bytes.data(), slot.n, slot.values->data());
  }
  size_t bytes = 0;
  for (MatrixSlot& slot : slots.matrices) {
    DSPARK_ASSIGN_OR_RETURN(slot.tensor, Find(source, slot.name, {slot.n, slot.k}));
    bytes += PackedMatrix::StorageBytes(slot.n, slot.k, PackedFormatOf(slot.tensor->type));
  }
  weights.storage = Buffer<uint8_t>(bytes);
  size_t offset = 0;
  for (const MatrixSlot& slot : slots.matrices) {
    *slot.matrix =
        PackedMatrix(slot.n, slot.k, PackedFormatOf(slot.tensor->type), weights.storage.data() + offset);
    offset += slot.matrix->Bytes();
    Pack(source, slot, pool);
  }
  for (size_t i = 0; i < slots.matrices.size(); ++i) {
    slots.matrices[i].matrix->SetNext(*slots.matrices[(i + 1) % slots.matrices.size()].matrix);
  }
  return weights;
}

}  // namespace dspark

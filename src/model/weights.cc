#include "model/weights.h"

#include <algorithm>

namespace dspark {
namespace {

class Packer {
 public:
  Packer(const ModelFiles& files, ThreadPool& pool) : source_(*files.weights), pool_(pool) {}

  Result<PackedMatrix> Matrix(const std::string& name, int n, int k) {
    DSPARK_ASSIGN_OR_RETURN(const TensorView* tensor, Find(name, {n, k}));
    const WeightFormat format = PackedFormatOf(tensor->type);
    PackedMatrix matrix(n, k, format);
    const size_t row_bytes = tensor->bytes.size() / n;
    pool_.Run([&](Worker& worker) {
      const Range groups = worker.Share((n + 15) / 16);
      for (int g = groups.begin; g < groups.end; ++g) {
        matrix.SetRowGroup(g, tensor->type, tensor->bytes.data() + size_t(g) * 16 * row_bytes, row_bytes,
                           std::min(16, n - g * 16));
      }
    });
    source_.Release(*tensor);
    return matrix;
  }

  Result<std::vector<float>> Vector(const std::string& name, int n) {
    DSPARK_ASSIGN_OR_RETURN(const TensorView* tensor, Find(name, {n}));
    std::vector<float> values(n);
    Dequantize(tensor->type, tensor->bytes.data(), n, values.data());
    source_.Release(*tensor);
    return values;
  }

 private:
  Result<const TensorView*> Find(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView* tensor = source_.Find(name);
    if (!tensor) {
      return MakeError("{}: tensor {} is missing; the file is incomplete or of another architecture", source_.path(),
                       name);
    }
    if (tensor->shape != shape) {
      return MakeError("{}: tensor {} has shape [{}], expected [{}] from the model's sizes; the file is inconsistent",
                       source_.path(), tensor->name, fmt::join(tensor->shape, ", "), fmt::join(shape, ", "));
    }
    if (!InfoOf(tensor->type).dequantize) {
      return MakeError("{}: tensor {} holds {}, not weights; the file is inconsistent", source_.path(), tensor->name,
                       InfoOf(tensor->type).name);
    }
    return tensor;
  }

  const TensorSource& source_;
  ThreadPool& pool_;
};

Status PackLayer(Packer& packer, const ModelConfig& c, int i, LayerWeights* layer) {
  const std::string blk = fmt::format("blk.{}.", i);
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  DSPARK_ASSIGN_OR_RETURN(layer->attn_norm, packer.Vector(blk + "attn_norm.weight", c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->ffn_norm, packer.Vector(blk + "ffn_norm.weight", c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->wq, packer.Matrix(blk + "attn_q.weight", q, c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->wk, packer.Matrix(blk + "attn_k.weight", kv, c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->wv, packer.Matrix(blk + "attn_v.weight", kv, c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->wo, packer.Matrix(blk + "attn_output.weight", c.d_model, q));
  DSPARK_ASSIGN_OR_RETURN(layer->gate, packer.Matrix(blk + "ffn_gate.weight", c.d_ffn, c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->up, packer.Matrix(blk + "ffn_up.weight", c.d_ffn, c.d_model));
  DSPARK_ASSIGN_OR_RETURN(layer->down, packer.Matrix(blk + "ffn_down.weight", c.d_model, c.d_ffn));
  return {};
}

}  // namespace

size_t ModelWeights::Bytes() const {
  size_t bytes = embedding.Bytes() + output.Bytes();
  for (const LayerWeights& l : layers) {
    for (const PackedMatrix* m : {&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down}) bytes += m->Bytes();
  }
  return bytes;
}

Result<ModelWeights> PackWeights(const ModelFiles& files, ThreadPool& pool) {
  const ModelConfig& c = files.config;
  Packer packer(files, pool);
  ModelWeights weights;
  DSPARK_ASSIGN_OR_RETURN(weights.embedding, packer.Matrix("token_embd.weight", c.vocab, c.d_model));
  if (!c.tied_embeddings) {
    DSPARK_ASSIGN_OR_RETURN(weights.output, packer.Matrix("output.weight", c.vocab, c.d_model));
  }
  DSPARK_ASSIGN_OR_RETURN(weights.output_norm, packer.Vector("output_norm.weight", c.d_model));
  weights.layers.resize(c.layers);
  for (int i = 0; i < c.layers; ++i) DSPARK_RETURN_IF_ERROR(PackLayer(packer, c, i, &weights.layers[i]));
  return weights;
}

}  // namespace dspark

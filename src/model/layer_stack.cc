#include "model/layer_stack.h"

#include <cmath>

#include "core/check.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

AttentionShape ShapeOf(const ModelConfig& c, const LayerStackLimits& limits) {
  return {.layout = {.layers = c.layers,
                     .kv_heads = c.kv_heads,
                     .head_dim = c.head_dim,
                     .block_tokens = limits.block_tokens,
                     .type = limits.kv_type},
          .heads = c.heads,
          .scale = 1 / std::sqrt(float(c.head_dim))};
}

}  // namespace

size_t PadStride(size_t n) { return (n + 15) / 16 * 16 + 16; }

LayerStack::LayerStack(const ModelConfig& config, std::span<const LayerWeights> weights, int workers,
                       const LayerStackLimits& limits)
    : d_model_(config.d_model),
      d_ffn_(config.d_ffn),
      heads_(config.heads),
      kv_heads_(config.kv_heads),
      head_dim_(config.head_dim),
      rms_eps_(config.rms_eps),
      rope_interleaved_(config.rope_interleaved),
      shape_(ShapeOf(config, limits)),
      rope_(limits.max_context, config.head_dim, config.rope_theta, config.rope_freq_divisors),
      x_stride_(PadStride(config.d_model)),
      qkv_stride_(PadStride(config.heads * config.head_dim)),
      x_(limits.max_rows * x_stride_),
      q_(limits.max_rows * qkv_stride_),
      k_(limits.max_rows * qkv_stride_),
      v_(limits.max_rows * qkv_stride_),
      normed_(limits.max_rows, config.d_model),
      attended_(limits.max_rows, config.heads * config.head_dim),
      hidden_(limits.max_rows, config.d_ffn),
      up_(limits.max_rows * hidden_.stride()),
      attention_(shape_, limits.max_rows, limits.max_context, workers) {
  for (const LayerWeights& w : weights) {
    for (const PackedMatrix* m : {&w.wq, &w.wk, &w.wv, &w.gate, &w.up})
      normed_int8_ |= m->k() == d_model_ && IsQuantized(m->format());
    attended_int8_ |= IsQuantized(w.wo.format());
    hidden_int8_ |= IsQuantized(w.down.format());
  }
}

size_t LayerStack::WorkspaceBytes() const {
  return x_.Bytes() + q_.Bytes() + k_.Bytes() + v_.Bytes() + normed_.Bytes() + attended_.Bytes() +
         hidden_.Bytes() + up_.Bytes() + attention_.Bytes() + rope_.Bytes();
}

KvLayout LayerStack::LayoutFor(const ModelConfig& config, const LayerStackLimits& limits) {
  return ShapeOf(config, limits).layout;
}

size_t LayerStack::WorkspaceBytesFor(const ModelConfig& config, int workers, const LayerStackLimits& limits) {
  const int rows = limits.max_rows, attended = config.heads * config.head_dim;
  const size_t hidden = Activations(0, config.d_ffn).stride();  // of up_ too
  const size_t floats = rows * (PadStride(config.d_model) + 3 * PadStride(attended) + hidden);
  return floats * sizeof(float) + Activations::BytesFor(rows, config.d_model) +
         Activations::BytesFor(rows, attended) + Activations::BytesFor(rows, config.d_ffn) +
         AttentionWorkspace::BytesFor(ShapeOf(config, limits), rows, limits.max_context, workers) +
         RopeTable::BytesFor(limits.max_context, config.head_dim);
}

void LayerStack::Begin(std::span<const AttentionSegment> segments) {
  segments_.assign(segments.begin(), segments.end());
  positions_.clear();
  for (const AttentionSegment& segment : segments) {
    DSPARK_CHECK_EQ(segment.first_row, int(positions_.size()));
    for (int i = 0; i < segment.rows; ++i) positions_.push_back(segment.first_position + i);
  }
  normed_.Resize(rows(), d_model_);
  attended_.Resize(rows(), heads_ * head_dim_);
  hidden_.Resize(rows(), d_ffn_);
}

// normed_ = RMS(X; weight), in fp32 and, where a matmul wants it, int8.
void LayerStack::Norm(const Worker& worker, const std::vector<float>& weight) {
  const Range share = worker.Share(rows());
  for (int r = share.begin; r < share.end; ++r) {
    RmsNorm(worker.isa(), X(r), weight.data(), d_model_, rms_eps_, normed_.Row(r));
    if (normed_int8_) normed_.QuantizeRow(r, worker.isa());
  }
}

// One row of q or k: RMS(head; norm) of every head where the family has it, then rope.
void LayerStack::NormAndRotate(Isa isa, float* x, int heads, const std::vector<float>& norm,
                               int position) const {
  for (int h = 0; h < heads && !norm.empty(); ++h) {
    float* head = x + h * head_dim_;
    RmsNorm(isa, head, norm.data(), head_dim_, rms_eps_, head);
  }
  Rope(isa, x, heads, head_dim_, rope_.Row(position), rope_interleaved_);
}

void LayerStack::AttentionBlock(Worker& worker, const LayerWeights& w, int layer) {
  Norm(worker, w.attn_norm);
  worker.Barrier();
  Attend(worker, w, layer, normed_);
}

void LayerStack::Attend(Worker& worker, const LayerWeights& w, int layer, const Activations& input) {
  MatMul(worker, w.wq, input, q_.data(), qkv_stride_);
  MatMul(worker, w.wk, input, k_.data(), qkv_stride_);
  MatMul(worker, w.wv, input, v_.data(), qkv_stride_);
  worker.Barrier();
  const Range share = worker.Share(rows());
  for (int r = share.begin; r < share.end; ++r) {
    NormAndRotate(worker.isa(), q_.data() + r * qkv_stride_, heads_, w.q_norm, position(r));
    NormAndRotate(worker.isa(), k_.data() + r * qkv_stride_, kv_heads_, w.k_norm, position(r));
  }
  worker.Barrier();
  StoreKv(worker, shape_.layout, layer, segments_, k_.data(), v_.data(), qkv_stride_);
  worker.Barrier();
  Attention(worker, shape_, layer, segments_, q_.data(), qkv_stride_, attended_.Row(0), attended_.stride(),
            attention_);
  worker.Barrier();
  if (attended_int8_) {
    for (int r = share.begin; r < share.end; ++r) attended_.QuantizeRow(r, worker.isa());
    worker.Barrier();
  }
  MatMul(worker, w.wo, attended_, X(0), x_stride_, Store::kAdd);
  worker.Barrier();
}

void LayerStack::StoreContext(Worker& worker, const LayerWeights& w, int layer, const Activations& input) {
  MatMul(worker, w.wk, input, k_.data(), qkv_stride_);
  MatMul(worker, w.wv, input, v_.data(), qkv_stride_);
  worker.Barrier();
  const Range share = worker.Share(rows());
  for (int r = share.begin; r < share.end; ++r)
    NormAndRotate(worker.isa(), k_.data() + r * qkv_stride_, kv_heads_, w.k_norm, position(r));
  worker.Barrier();
  StoreKv(worker, shape_.layout, layer, segments_, k_.data(), v_.data(), qkv_stride_);
  worker.Barrier();
}

void LayerStack::FfnBlock(Worker& worker, const LayerWeights& w) {
  Norm(worker, w.ffn_norm);
  worker.Barrier();
  MatMul(worker, w.gate, normed_, hidden_.Row(0), hidden_.stride());
  MatMul(worker, w.up, normed_, up_.data(), hidden_.stride());
  // Gate and up gave this worker the same columns: no barrier.
  const Range columns = MatMulColumns(worker, d_ffn_);
  for (int r = 0; r < rows(); ++r) {
    SwiGlu(worker.isa(), hidden_.Row(r) + columns.begin, up_.data() + r * hidden_.stride() + columns.begin,
           columns.size());
    if (hidden_int8_) hidden_.QuantizeColumns(r, columns, worker.isa());
  }
  worker.Barrier();
  MatMul(worker, w.down, hidden_, X(0), x_stride_, Store::kAdd);
  worker.Barrier();
}

}  // namespace dspark

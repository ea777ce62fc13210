#include "model/dense_target.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops.h"

namespace dspark {
namespace {

// A larger batch runs in slices: with this many rows the activations stay in L2, and reading the weights once
// per slice hides behind arithmetic. SmolLM2-135M, 512 rows on two Zen 4 cores: 275 ms in one slice, 255 in
// four.
constexpr int kSliceRows = 128;

// Rows this far apart never share a cache set pattern: a power of two would.
size_t PadStride(size_t n) { return (n + 15) / 16 * 16 + 16; }

AttentionShape ShapeOf(const ModelConfig& c, const TargetLimits& limits) {
  return {.layout = {.layers = c.layers,
                     .kv_heads = c.kv_heads,
                     .head_dim = c.head_dim,
                     .block_tokens = limits.block_tokens,
                     .type = limits.kv_type},
          .heads = c.heads,
          .scale = 1 / std::sqrt(float(c.head_dim))};
}

}  // namespace

DenseTarget::DenseTarget(const ModelConfig& config, ModelWeights weights, ThreadPool& pool,
                         const TargetLimits& limits)
    : config_(config),
      weights_(std::move(weights)),
      pool_(pool),
      limits_(limits),
      shape_(ShapeOf(config, limits)),
      rope_(limits.max_context, config.head_dim, config.rope_theta, config.rope_freq_divisors),
      x_stride_(PadStride(config.d_model)),
      qkv_stride_(PadStride(config.heads * config.head_dim)),
      x_(kSliceRows * x_stride_),
      q_(kSliceRows * qkv_stride_),
      k_(kSliceRows * qkv_stride_),
      v_(kSliceRows * qkv_stride_),
      normed_(kSliceRows, config.d_model),
      attended_(kSliceRows, config.heads * config.head_dim),
      hidden_(kSliceRows, config.d_ffn),
      head_input_(std::min(limits.max_logit_rows, kSliceRows), config.d_model),
      up_(kSliceRows * hidden_.stride()),
      logits_(limits.max_logit_rows * PadStride(config.vocab)),
      taps_(limits.max_rows * limits.max_taps * size_t(config.d_model)),
      logits_stride_(PadStride(config.vocab)),
      attention_(shape_, kSliceRows, limits.max_context, pool.threads()) {
  for (const LayerWeights& w : weights_.layers) {
    for (const PackedMatrix* m : {&w.wq, &w.wk, &w.wv, &w.gate, &w.up})
      normed_int8_ |= IsQuantized(m->format());
    attended_int8_ |= IsQuantized(w.wo.format());
    hidden_int8_ |= IsQuantized(w.down.format());
  }
  head_int8_ = IsQuantized(weights_.head().format());
}

size_t DenseTarget::WorkspaceBytes() const {
  return x_.Bytes() + q_.Bytes() + k_.Bytes() + v_.Bytes() + normed_.Bytes() + attended_.Bytes() +
         hidden_.Bytes() + head_input_.Bytes() + up_.Bytes() + logits_.Bytes() + taps_.Bytes() +
         attention_.Bytes() + rope_.Bytes();
}

size_t DenseTarget::WorkspaceBytesFor(const ModelConfig& config, const TargetLimits& limits, int threads) {
  const int attended = config.heads * config.head_dim, logit_rows = limits.max_logit_rows;
  const size_t hidden = Activations(0, config.d_ffn).stride();  // of up_ too
  const size_t floats = kSliceRows * (PadStride(config.d_model) + 3 * PadStride(attended) + hidden) +
                        logit_rows * PadStride(config.vocab) +
                        limits.max_rows * limits.max_taps * size_t(config.d_model);
  return floats * sizeof(float) + Activations::BytesFor(kSliceRows, config.d_model) +
         Activations::BytesFor(kSliceRows, attended) + Activations::BytesFor(kSliceRows, config.d_ffn) +
         Activations::BytesFor(std::min(logit_rows, kSliceRows), config.d_model) +
         AttentionWorkspace::BytesFor(ShapeOf(config, limits), kSliceRows, limits.max_context, threads) +
         RopeTable::BytesFor(limits.max_context, config.head_dim);
}

ForwardOutput DenseTarget::Forward(std::span<const Segment> segments, std::span<const int> tap_layers) {
  DSPARK_CHECK_LE(int(tap_layers.size()), limits_.max_taps);
  int rows = 0;
  for (const Segment& segment : segments) {
    DSPARK_CHECK_LE(segment.position + int(segment.tokens.size()), segment.kv->capacity());
    DSPARK_CHECK_LE(segment.position + int(segment.tokens.size()), limits_.max_context);
    rows += int(segment.tokens.size());
  }
  DSPARK_CHECK_LE(rows, limits_.max_rows);
  taps_stride_ = tap_layers.size() * config_.d_model;
  logits_done_ = 0;
  for (first_row_ = 0; first_row_ < rows; first_row_ += kSliceRows) {
    PlanSlice(segments);
    pool_.Run([&](Worker& worker) { Run(worker, tap_layers); });
    logits_done_ += int(logit_rows_.size());
  }
  return {.logits = logits_.data(),
          .logits_stride = logits_stride_,
          .logit_rows = logits_done_,
          .taps = taps_.data(),
          .taps_stride = taps_stride_};
}

// Lays out the rows [first_row_, first_row_ + kSliceRows) of the batch.
void DenseTarget::PlanSlice(std::span<const Segment> segments) {
  tokens_.clear();
  positions_.clear();
  attention_segments_.clear();
  logit_rows_.clear();
  int before = 0;  // rows of the batch before this segment
  for (const Segment& segment : segments) {
    const int begin = std::max(0, first_row_ - before);
    const int end = std::min(int(segment.tokens.size()), first_row_ + kSliceRows - before);
    before += int(segment.tokens.size());
    if (begin >= end) continue;
    const int first = int(tokens_.size());
    attention_segments_.push_back({segment.kv->blocks(), first, end - begin, segment.position + begin});
    for (int i = begin; i < end; ++i) {
      if (i >= segment.logits_from) logit_rows_.push_back(int(tokens_.size()));
      tokens_.push_back(segment.tokens[i]);
      positions_.push_back(segment.position + i);
    }
  }
  DSPARK_CHECK_LE(logits_done_ + int(logit_rows_.size()), limits_.max_logit_rows);
  const int rows = int(tokens_.size());
  normed_.Resize(rows, config_.d_model);
  attended_.Resize(rows, config_.heads * config_.head_dim);
  hidden_.Resize(rows, config_.d_ffn);
  head_input_.Resize(int(logit_rows_.size()), config_.d_model);
}

// The whole pass, read from top to bottom by every worker.
void DenseTarget::Run(Worker& worker, std::span<const int> tap_layers) {
  auto tap = tap_layers.begin();
  const auto tap_if = [&](int layer) {
    if (tap != tap_layers.end() && *tap == layer) Tap(worker, int(tap++ - tap_layers.begin()));
  };
  Embed(worker);
  worker.Barrier();
  tap_if(-1);
  for (int layer = 0; layer < config_.layers; ++layer) {
    AttentionBlock(worker, layer);
    FfnBlock(worker, layer);
    tap_if(layer);
  }
  Head(worker);
}

void DenseTarget::Embed(const Worker& worker) {
  const Range rows = worker.Share(int(tokens_.size()));
  for (int r = rows.begin; r < rows.end; ++r)
    weights_.embedding.GetRow(tokens_[r], x_.data() + r * x_stride_);
}

// normed_ = RMS(x; weight), in fp32 and, where a matmul wants it, int8.
void DenseTarget::Norm(const Worker& worker, const std::vector<float>& weight) {
  const Range rows = worker.Share(int(tokens_.size()));
  for (int r = rows.begin; r < rows.end; ++r) {
    RmsNorm(worker.isa(), x_.data() + r * x_stride_, weight.data(), config_.d_model, config_.rms_eps,
            normed_.Row(r));
    if (normed_int8_) normed_.QuantizeRow(r, worker.isa());
  }
}

// x += Wo · Attn(RMS(x))
void DenseTarget::AttentionBlock(Worker& worker, int layer) {
  const LayerWeights& w = weights_.layers[layer];
  Norm(worker, w.attn_norm);
  worker.Barrier();
  MatMul(worker, w.wq, normed_, q_.data(), qkv_stride_);
  MatMul(worker, w.wk, normed_, k_.data(), qkv_stride_);
  MatMul(worker, w.wv, normed_, v_.data(), qkv_stride_);
  worker.Barrier();
  RotateAndStore(worker, layer);
  worker.Barrier();
  Attention(worker, shape_, layer, attention_segments_, q_.data(), qkv_stride_, attended_.Row(0),
            attended_.stride(), attention_);
  worker.Barrier();
  if (attended_int8_) {
    const Range rows = worker.Share(int(tokens_.size()));
    for (int r = rows.begin; r < rows.end; ++r) attended_.QuantizeRow(r, worker.isa());
    worker.Barrier();
  }
  MatMul(worker, w.wo, attended_, x_.data(), x_stride_, Store::kAdd);
  worker.Barrier();
}

void DenseTarget::RotateAndStore(Worker& worker, int layer) {
  const LayerWeights& w = weights_.layers[layer];
  const Range rows = worker.Share(int(tokens_.size()));
  for (int r = rows.begin; r < rows.end; ++r) {
    NormAndRotate(q_.data() + r * qkv_stride_, config_.heads, w.q_norm, positions_[r]);
    NormAndRotate(k_.data() + r * qkv_stride_, config_.kv_heads, w.k_norm, positions_[r]);
  }
  worker.Barrier();
  StoreKv(worker, shape_.layout, layer, attention_segments_, k_.data(), v_.data(), qkv_stride_);
}

// One row of q or k: RMS(head; norm) of every head where the family has it, then rope.
void DenseTarget::NormAndRotate(float* x, int heads, const std::vector<float>& norm, int position) const {
  for (int h = 0; h < heads && !norm.empty(); ++h) {
    float* head = x + h * config_.head_dim;
    RmsNorm(pool_.isa(), head, norm.data(), config_.head_dim, config_.rms_eps, head);
  }
  Rope(pool_.isa(), x, heads, config_.head_dim, rope_.Row(position), config_.rope_interleaved);
}

// x += Wd · (silu(Wg · n) ⊙ Wu · n), n = RMS(x)
void DenseTarget::FfnBlock(Worker& worker, int layer) {
  const LayerWeights& w = weights_.layers[layer];
  const int count = int(tokens_.size());
  Norm(worker, w.ffn_norm);
  worker.Barrier();
  MatMul(worker, w.gate, normed_, hidden_.Row(0), hidden_.stride());
  MatMul(worker, w.up, normed_, up_.data(), hidden_.stride());
  // Gate and up gave this worker the same columns: no barrier.
  const Range columns = MatMulColumns(worker, config_.d_ffn);
  for (int r = 0; r < count; ++r) {
    SwiGlu(worker.isa(), hidden_.Row(r) + columns.begin, up_.data() + r * hidden_.stride() + columns.begin,
           columns.size());
    if (hidden_int8_) hidden_.QuantizeColumns(r, columns, worker.isa());
  }
  worker.Barrier();
  MatMul(worker, w.down, hidden_, x_.data(), x_stride_, Store::kAdd);
  worker.Barrier();
}

// logits = head · RMS(x) for the rows that want them.
void DenseTarget::Head(Worker& worker) {
  const int count = int(logit_rows_.size());
  if (count == 0) return;
  const Range rows = worker.Share(count);
  for (int i = rows.begin; i < rows.end; ++i) {
    RmsNorm(worker.isa(), x_.data() + logit_rows_[i] * x_stride_, weights_.output_norm.data(),
            config_.d_model, config_.rms_eps, head_input_.Row(i));
    if (head_int8_) head_input_.QuantizeRow(i, worker.isa());
  }
  worker.Barrier();
  MatMul(worker, weights_.head(), head_input_, logits_.data() + logits_done_ * logits_stride_,
         logits_stride_);
}

void DenseTarget::Tap(const Worker& worker, int slot) {
  const Range rows = worker.Share(int(tokens_.size()));
  for (int r = rows.begin; r < rows.end; ++r) {
    std::copy_n(x_.data() + r * x_stride_, config_.d_model,
                taps_.data() + (first_row_ + r) * taps_stride_ + slot * config_.d_model);
  }
}

Result<TargetPlan> PlanTarget(const ModelFiles& files, const TargetLimits& limits, int threads) {
  DSPARK_ASSIGN_OR_RETURN(const size_t weights, PackedWeightBytes(files, limits.weights));
  return TargetPlan{{weights, DenseTarget::WorkspaceBytesFor(files.config, limits, threads)},
                    ShapeOf(files.config, limits).layout};
}

Result<std::unique_ptr<Target>> LoadTarget(const ModelFiles& files, ThreadPool& pool,
                                           const TargetLimits& limits) {
  DSPARK_ASSIGN_OR_RETURN(ModelWeights weights, PackWeights(files, pool, limits.weights));
  return std::unique_ptr<Target>(
      std::make_unique<DenseTarget>(files.config, std::move(weights), pool, limits));
}

}  // namespace dspark

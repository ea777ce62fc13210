#include "draft/markov_head.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops.h"
#include "model/layer_stack.h"

namespace dspark {
namespace {

// What rounding may add to a computed dot product or take from a computed norm, with much to spare: r terms
// of fp32 lose less than r · 6e-8.
constexpr double kSlack = 1.001;

float NormOf(const float* x, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += double(x[i]) * double(x[i]);
  return float(std::sqrt(sum));
}

float Sigmoid(float exp_of_minus_x) { return 1 / (1 + exp_of_minus_x); }
float Tanh(float exp_of_2x) { return 1 - 2 / (1 + exp_of_2x); }

}  // namespace

void AddMarkovSlots(const DrafterConfig& config, MarkovWeights* w, WeightSlots* slots) {
  w->kind = config.markov;
  if (config.markov == MarkovHead::kNone) return;
  const int r = config.markov_rank, d = config.backbone.d_model;
  slots->tables.push_back({"markov_w1.weight", config.target_vocab, r, &w->w1});
  slots->tables.push_back({"markov_w2.weight", config.backbone.vocab, r, &w->w2});
  if (config.markov == MarkovHead::kGated) {
    slots->matrices.push_back({"markov_gate.weight", r, d + r, &w->joint});
    slots->vectors.push_back({"markov_gate.bias", r, &w->joint_bias});
  } else if (config.markov == MarkovHead::kRnn) {
    slots->matrices.push_back({"markov_joint.weight", 3 * r, 2 * r + d, &w->joint});
    slots->vectors.push_back({"markov_joint.bias", 3 * r, &w->joint_bias});
  }
}

void MeasureNorms(ThreadPool& pool, MarkovWeights* w) {
  w->norms.resize(size_t(w->w2.n()));
  pool.Run([&](Worker& worker) {
    std::vector<float> row(size_t(w->w2.k()));
    const Range share = worker.Share(w->w2.n());
    for (int v = share.begin; v < share.end; ++v) {
      w->w2.GetRow(v, row.data());
      w->norms[size_t(v)] = float(kSlack * double(NormOf(row.data(), w->w2.k())));
    }
  });
  w->largest_norm = w->norms.empty() ? 0 : *std::max_element(w->norms.begin(), w->norms.end());
}

int32_t CorrectedArgMax(Isa isa, const MarkovWeights& w, std::span<const float> u,
                        std::span<const int32_t> top, const float* g) {
  const float norm = NormOf(g, w.rank()), most = norm * w.largest_norm;
  int32_t best = top[0];
  float best_logit = -std::numeric_limits<float>::infinity();
  const auto consider = [&](int32_t v) {
    const float logit = u[size_t(v)] + w.w2.Dot(isa, v, g);
    if (logit > best_logit || (logit == best_logit && v < best)) best = v, best_logit = logit;
  };
  for (int32_t v : top) {
    if (u[size_t(v)] + most < best_logit) return best;  // nor can any that is less likely
    consider(v);
  }
  if (top.size() == u.size() || !std::isfinite(best_logit)) return best;
  int32_t ids[64];
  int count = 0;
  for (size_t v = 0; v < u.size();) {
    v = SumAtLeast(isa, u, w.norms.data(), norm, best_logit, v, ids, &count);
    for (int i = 0; i < count; ++i) consider(ids[i]);
  }
  return best;
}

MarkovSteps::MarkovSteps(const MarkovWeights& weights, int width, int max_sequences)
    : weights_(weights), rank_(weights.rank()), width_(width) {
  if (weights.kind == MarkovHead::kNone) return;
  if (weights.kind == MarkovHead::kGated) embedding_at_ = width;
  if (weights.kind == MarkovHead::kRnn) embedding_at_ = rank_, hidden_at_ = 2 * rank_;
  input_ = Activations(max_sequences, mixes() ? weights.joint.k() : rank_);
  mixed_stride_ = PadStride(size_t(weights.joint.n()));
  mixed_ = Buffer<float>(size_t(max_sequences) * mixed_stride_);
  factor_ = Buffer<float>(size_t(max_sequences) * size_t(rank_));
}

void MarkovSteps::Begin(int sequences) {
  input_.Resize(sequences, mixes() ? weights_.joint.k() : rank_);
  if (weights_.kind != MarkovHead::kRnn) return;
  for (int s = 0; s < sequences; ++s) std::fill_n(input_.Row(s), rank_, 0.0f);
}

void MarkovSteps::Read(Isa isa, int sequence, int32_t previous, const float* hidden) {
  float* row = input_.Row(sequence);
  weights_.w1.GetRow(previous, row + embedding_at_);
  if (!mixes()) return;
  std::copy_n(hidden, width_, row + hidden_at_);
  if (IsQuantized(weights_.joint.format())) input_.QuantizeRow(sequence, isa);
}

void MarkovSteps::Mix(Worker& worker) {
  if (!mixes()) return;
  MatMul(worker, weights_.joint, input_, mixed_.data(), mixed_stride_);
  worker.Barrier();
}

void MarkovSteps::Finish(Isa isa, int sequence) {
  if (!mixes()) return;
  float* z = mixed_.data() + size_t(sequence) * mixed_stride_;
  float* g = factor_.data() + size_t(sequence) * size_t(rank_);
  for (size_t i = 0; i < weights_.joint_bias.size(); ++i) z[i] += weights_.joint_bias[i];
  if (weights_.kind == MarkovHead::kGated) FinishGated(isa, embedding(sequence), z, g);
  if (weights_.kind == MarkovHead::kRnn) FinishRnn(isa, input_.Row(sequence), z, g);
}

void MarkovSteps::FinishGated(Isa isa, const float* e, float* z, float* g) const {
  for (int i = 0; i < rank_; ++i) z[i] = -z[i];
  Exp(isa, z, rank_, z);
  for (int i = 0; i < rank_; ++i) g[i] = Sigmoid(z[i]) * e[i];
}

void MarkovSteps::FinishRnn(Isa isa, float* s, float* z, float* g) const {
  const int r = rank_;
  for (int i = 0; i < r; ++i) z[i] = -z[i];
  for (int i = r; i < 3 * r; ++i) z[i] = 2 * z[i];
  Exp(isa, z, 3 * r, z);
  for (int i = 0; i < r; ++i) {
    const float keep = Sigmoid(z[i]);
    s[i] = keep * s[i] + (1 - keep) * Tanh(z[r + i]);
    g[i] = Tanh(z[2 * r + i]);
  }
}

}  // namespace dspark

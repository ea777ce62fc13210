#include "train/sequential_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/head_loss.h"
#include "train/products.h"
#include "train/step_attention.h"

namespace dspark {
namespace {

using torch::Tensor;

// What a step's layer begins with: the residual stream, and what attention reads, [rows, d or 2 d].
struct LayerInput {
  Tensor residual, attention;
};

struct Pass {
  const SequentialRun& run;
  const Weights& weights;
  const TrainSample& sample;
  const StepRows& rows;
  Tensor picked = torch::tensor(rows.rows);
  // Of step 0 for all rows up to the last; of the later steps for the picked ones.
  Tensor keys = {}, values = {};
  std::vector<Tensor> own_keys = {}, own_values = {};

  const ModelConfig& config() const { return run.config.backbone; }
  Tensor Norm(const Tensor& x, std::string_view name) const {
    return RmsNorm(x, Find(weights, name).leaf, config().rms_eps);
  }
  const Weight& Of(std::string_view name) const { return OfLayer(weights, 0, name); }

  // The target's states of rows 0 … c - 1.
  Tensor TargetStates(int64_t c) const {
    const int64_t length = int64_t(sample.ids.size());
    const torch::Device device = run.frozen.head.device();
    if (run.config.kind == DrafterKind::kMtp)
      return CopyOfRows(sample.last_hidden, length, device).narrow(0, 0, c);
    return Linear(CopyOfRows(sample.taps, length, device).narrow(0, 0, c), Find(weights, "fc.weight"));
  }

  // Embeddings of the tokens at `positions`; behind the text's end, of token 0.
  Tensor Tokens(const std::vector<int64_t>& positions) const {
    std::vector<int64_t> ids;
    for (const int64_t p : positions)
      ids.push_back(p < int64_t(sample.ids.size()) ? sample.ids[size_t(p)] : 0);
    return RowsOf(run.frozen.embedding, ids);
  }

  LayerInput Input(const Tensor& tokens, const Tensor& states) const {
    if (run.config.kind == DrafterKind::kEagle3) {
      const Tensor pair = torch::cat(
          {Norm(tokens, "layers.0.input_layernorm.weight"), Norm(states, "layers.0.hidden_norm.weight")}, 1);
      return {states, pair};
    }
    const Tensor pair = torch::cat({Norm(tokens, "enorm.weight"), Norm(states, "hnorm.weight")}, 1);
    const Tensor z = Linear(pair, Find(weights, "eh_proj.weight"));
    return {z, Norm(z, "layers.0.input_layernorm.weight")};
  }

  Tensor HeadsOf(const Tensor& x, std::string_view name) const {
    return Linear(x, Of(name)).view({x.size(0), -1, config().head_dim});
  }
  // Rotated keys or queries.
  Tensor Rotated(const Tensor& x, std::string_view projection, std::string_view norm,
                 const Rope& rope) const {
    return Rotate(RmsNorm(HeadsOf(x, projection), Of(norm).leaf, config().rms_eps), rope);
  }

  // y [n, d] of step k. states: [c, d] of the target's rows at step 0, [n, d] of the picked ones later.
  Tensor Step(int k, const Tensor& states) {
    std::vector<int64_t> at = rows.rows;
    if (k == 0) {
      at.resize(size_t(states.size(0)));
      std::iota(at.begin(), at.end(), int64_t{0});
    }
    for (int64_t& p : at) p += k;
    const Rope rope = MakeRope(torch::tensor(at).to(states.device()), config());
    for (int64_t& p : at) ++p;
    const LayerInput all = Input(Tokens(at), states);
    const Tensor key = Rotated(all.attention, "self_attn.k_proj", "self_attn.k_norm", rope);
    const Tensor value = HeadsOf(all.attention, "self_attn.v_proj");
    if (k > 0) {
      own_keys.push_back(key);
      own_values.push_back(value);
      return Layer(all, rope);
    }
    keys = key;
    values = value;
    const auto pick = [&](const Tensor& t) { return t.index_select(0, picked.to(t.device())); };
    return Layer({pick(all.residual), pick(all.attention)}, {pick(rope.cos), pick(rope.sin)});
  }

  Tensor Layer(const LayerInput& in, const Rope& rope) const {
    const auto stacked = [](const std::vector<Tensor>& own) {
      return own.empty() ? Tensor() : torch::stack(own, 1);
    };
    const Tensor q = Rotated(in.attention, "self_attn.q_proj", "self_attn.q_norm", rope);
    const Tensor seen =
        StepAttention(q, keys, values, stacked(own_keys), stacked(own_values), rows.rows, run.precision);
    const Tensor x = in.residual + Linear(seen, Of("self_attn.o_proj"));
    return x + Mlp(weights, 0, x, config().rms_eps);
  }
};

// The drafts that count, those that share a teacher's row side by side: its logits are made once.
std::vector<int64_t> ByTeacherRow(const StepRows& rows) {
  std::vector<int64_t> at;
  for (size_t i = 0; i < rows.valid.size(); ++i) {
    if (rows.valid[i]) at.push_back(int64_t(i));
  }
  std::ranges::stable_sort(at, {},
                           [&](int64_t i) { return rows.rows[size_t(i / rows.steps)] + i % rows.steps; });
  return at;
}

}  // namespace

StepRows ChooseRows(DrafterKind kind, std::span<const uint8_t> loss_mask, int steps, double decay,
                    int left_out) {
  const bool eagle3 = kind == DrafterKind::kEagle3;
  const int64_t length = int64_t(loss_mask.size());
  StepRows result{.steps = steps, .rows = {}, .valid = {}, .weights = {}, .weight = eagle3 ? 1.0 : 0.0};
  for (int64_t row = 0; row + 1 < length; ++row) {
    std::vector<uint8_t> valid;
    for (int64_t k = 0; k < steps; ++k) {
      const int64_t judged = row + k + (eagle3 ? 0 : 2);
      valid.push_back(judged < length - (eagle3 ? 1 : 0) && loss_mask[size_t(judged)]);
    }
    if (std::ranges::count(valid, uint8_t{1}) == 0) continue;
    result.rows.push_back(row);
    for (int k = 0; k < steps; ++k) {
      const double weight = valid[size_t(k)] ? std::pow(decay, k) : 0;
      result.weights.push_back(float(eagle3 ? weight / double(length + left_out) : weight));
      if (!eagle3) result.weight += weight;
    }
    result.valid.insert(result.valid.end(), valid.begin(), valid.end());
  }
  return result;
}

std::vector<Tensor> SequentialStates(const SequentialRun& run, const Weights& weights,
                                     const TrainSample& sample, const StepRows& rows) {
  Pass pass{.run = run, .weights = weights, .sample = sample, .rows = rows};
  std::vector<Tensor> states;
  for (int k = 0; k < rows.steps; ++k)
    states.push_back(pass.Step(k, k == 0 ? pass.TargetStates(rows.rows.back() + 1) : states.back()));
  return states;
}

Tensor HeadInput(const SequentialRun& run, const Weights& weights, const Tensor& states) {
  return RmsNorm(states, Find(weights, "norm.weight").leaf, run.config.backbone.rms_eps);
}

SequentialLoss ComputeSequentialLoss(const SequentialRun& run, const Weights& weights,
                                     const TrainSample& sample, const StepRows& rows, double denominator) {
  SequentialLoss result{.total = {}, .at = ByTeacherRow(rows), .ce = {}, .l1 = {}};
  if (result.at.empty()) return result;
  const torch::Device device = run.frozen.head.device();
  const int64_t n = int64_t(rows.rows.size()), length = int64_t(sample.ids.size());
  std::vector<int64_t> of_states, teacher_rows, labels;
  std::vector<float> draft_weights;
  for (const int64_t i : result.at) {
    const int64_t row = i / rows.steps, step = i % rows.steps;
    of_states.push_back(step * n + row);
    teacher_rows.push_back(rows.rows[size_t(row)] + 1 + step);
    // Eagle3 reads no label, and its last draft is of a token behind the text.
    labels.push_back(sample.ids[size_t(std::min(teacher_rows.back() + 1, length - 1))]);
    draft_weights.push_back(rows.weights[size_t(i)] / float(denominator));
  }
  const Tensor states = torch::cat(SequentialStates(run, weights, sample, rows), 0);
  const Tensor hidden = HeadInput(run, weights, states.index_select(0, torch::tensor(of_states).to(device)));
  const Tensor w = torch::tensor(draft_weights).to(device);
  HeadLossInputs inputs{.draft_head = run.draft_head,
                        .teacher = TeacherOf(run.frozen, sample),
                        .teacher_rows = torch::tensor(teacher_rows),
                        .labels = {},
                        .ce_weights = w * run.shares.ce,
                        .l1_weights = w * run.shares.l1,
                        .log_acceptance = run.shares.log_acceptance};
  if (run.config.kind == DrafterKind::kMtp) {
    const Tensor ids = torch::tensor(labels).to(device);
    inputs.labels = run.frozen.head_row.index_select(0, ids).to(torch::kInt64);
  }
  const HeadLoss loss = ComputeHeadLoss(hidden, {}, {}, inputs);
  result.total = loss.loss;
  result.ce = loss.ce;
  result.l1 = loss.l1;
  return result;
}

}  // namespace dspark

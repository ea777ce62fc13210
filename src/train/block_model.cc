#include "train/block_model.h"

#include "train/block_attention.h"
#include "train/head_loss.h"
#include "train/products.h"

namespace dspark {
namespace {

using torch::Tensor;

// Slot 0 of a block is its anchor's token, the others are masks.
Tensor EmbedBlocks(const BlockRun& run, const BlockSlots& slots) {
  std::vector<int64_t> ids(size_t(slots.slots()), run.config.mask_token);
  for (size_t b = 0; b < size_t(slots.blocks); ++b)
    ids[b * size_t(slots.gamma)] = slots.previous[b * size_t(slots.gamma)];
  return RowsOf(run.frozen.embedding, ids);
}

// Positions of the context rows, then of the slots.
Tensor Positions(const BlockSlots& slots, int context) {
  std::vector<int64_t> positions;
  for (int i = 0; i < context; ++i) positions.push_back(i);
  for (const int anchor : slots.anchors) {
    for (int j = 0; j < slots.gamma; ++j) positions.push_back(anchor + j);
  }
  return torch::tensor(positions);
}

struct LayerPass {
  const BlockRun& run;
  const Weights& weights;
  const BlockLayout& layout;
  Rope rope;  // of context and slots

  Tensor Attention(int layer, const Tensor& features, const Tensor& x) const {
    const ModelConfig& c = run.config.backbone;
    const auto weight = [&](std::string_view name) -> const Weight& { return OfLayer(weights, layer, name); };
    const Tensor xn = RmsNorm(x, weight("input_layernorm").leaf, c.rms_eps);
    const Tensor rows = torch::cat({features, xn}, 0);  // the features are not normalised again
    const Rope query_rope = {rope.cos.narrow(0, layout.context, x.size(0)),
                             rope.sin.narrow(0, layout.context, x.size(0))};
    const auto heads = [&](const Tensor& y) { return y.view({y.size(0), -1, c.head_dim}); };
    Tensor q = heads(Linear(xn, weight("self_attn.q_proj")));
    Tensor k = heads(Linear(rows, weight("self_attn.k_proj")));
    const Tensor v = heads(Linear(rows, weight("self_attn.v_proj")));
    q = Rotate(RmsNorm(q, weight("self_attn.q_norm").leaf, c.rms_eps), query_rope);
    k = Rotate(RmsNorm(k, weight("self_attn.k_norm").leaf, c.rms_eps), rope);
    return Linear(BlockAttention(q, k, v, layout, run.precision), weight("self_attn.o_proj"));
  }
};

// What the Markov head multiplies with W2, from the embeddings of the previous tokens (drafters.md §2.6).
Tensor MarkovFeatures(const BlockRun& run, const Weights& weights, const Tensor& hidden,
                      const Tensor& previous, const BlockSlots& slots) {
  if (run.config.markov == MarkovHead::kVanilla) return previous;
  if (run.config.markov == MarkovHead::kGated) {
    const Tensor gate =
        Linear(torch::cat({hidden, previous}, 1), Find(weights, "markov_head.gate_proj.weight"));
    return torch::sigmoid(gate + Find(weights, "markov_head.gate_proj.bias").leaf) * previous;
  }
  const auto by_slot = [&](const Tensor& t) { return t.view({slots.blocks, slots.gamma, -1}); };
  const Tensor h = by_slot(hidden), e = by_slot(previous);
  Tensor state = torch::zeros({slots.blocks, e.size(2)}, e.options());
  std::vector<Tensor> features;
  for (int j = 0; j < slots.gamma; ++j) {
    const Tensor z = Linear(torch::cat({state, e.select(1, j), h.select(1, j)}, 1),
                            Find(weights, "markov_head.joint_proj.weight")) +
                     Find(weights, "markov_head.joint_proj.bias").leaf;
    const std::vector<Tensor> part = z.chunk(3, 1);  // gate, candidate, output
    const Tensor gate = part[0].sigmoid();
    features.push_back(part[2].tanh());
    state = gate * state + (1 - gate) * part[1].tanh();
  }
  return torch::stack(features, 1).view({slots.slots(), -1});
}

}  // namespace

Tensor BlockHidden(const BlockRun& run, const Weights& weights, const Tensor& taps, const BlockSlots& slots) {
  const BlockLayout layout{slots.anchors.back(), slots.anchors, slots.gamma};
  const double eps = run.config.backbone.rms_eps;
  const Tensor features = RmsNorm(Linear(taps.narrow(0, 0, layout.context), Find(weights, "fc.weight")),
                                  Find(weights, "hidden_norm.weight").leaf, eps);
  const LayerPass pass{run, weights, layout,
                       MakeRope(Positions(slots, layout.context).to(taps.device()), run.config.backbone)};
  Tensor x = EmbedBlocks(run, slots);
  for (int layer = 0; layer < run.config.backbone.layers; ++layer) {
    x = x + pass.Attention(layer, features, x);
    x = x + Mlp(weights, layer, x, eps);
  }
  return RmsNorm(x, Find(weights, "norm.weight").leaf, eps);
}

BlockHeads ApplyHeads(const BlockRun& run, const Weights& weights, const Tensor& hidden,
                      const BlockSlots& slots) {
  BlockHeads heads;
  Tensor previous;
  if (run.config.markov != MarkovHead::kNone) {
    const std::vector<int64_t> ids(slots.previous.begin(), slots.previous.end());
    previous = torch::embedding(Find(weights, "markov_head.markov_w1.weight").leaf,
                                torch::tensor(ids).to(hidden.device()));
    heads.bias = MarkovFeatures(run, weights, hidden, previous, slots);
  }
  if (!run.config.confidence) return heads;
  const Tensor x = run.config.confidence_with_markov ? torch::cat({hidden, previous}, 1) : hidden;
  heads.confidence = x.matmul(Find(weights, "confidence_head.proj.weight").leaf.squeeze(0)) +
                     Find(weights, "confidence_head.proj.bias").leaf;
  return heads;
}

BlockLoss ComputeBlockLoss(const BlockRun& run, const Weights& weights, const TrainSample& sample,
                           const BlockSlots& slots, double denominator) {
  const int64_t length = int64_t(sample.ids.size());
  const torch::Device device = run.frozen.head.device();
  BlockLoss result;
  std::vector<int64_t> teacher_rows, labels;
  std::vector<int64_t> places;
  std::vector<float> slot_weights;
  for (int i = 0; i < slots.slots(); ++i) {
    if (!slots.valid[size_t(i)]) continue;
    result.values.slots.push_back(i);
    teacher_rows.push_back(slots.anchors[size_t(i / slots.gamma)] + i % slots.gamma);
    labels.push_back(slots.labels[size_t(i)]);
    if (run.shares.dpace) places.push_back(i % slots.gamma);
    slot_weights.push_back(slots.weights[size_t(i)] / float(denominator));
  }
  if (result.values.slots.empty()) return result;
  const Tensor valid = torch::tensor(result.values.slots).to(device);
  const Tensor w = torch::tensor(slot_weights).to(device);
  const Tensor head_w = run.shares.dpace ? torch::full_like(w, 1 / denominator) : w;
  const auto pick = [&](const Tensor& t) { return t.defined() ? t.index_select(0, valid) : t; };

  // A copy: the backward pass, which may come when the sample is gone, reads the taps.
  const Tensor taps = CopyOfRows(sample.taps, length, device);
  const Tensor hidden = BlockHidden(run, weights, taps, slots);
  const BlockHeads heads = ApplyHeads(run, weights, hidden, slots);
  const HeadLossInputs inputs{
      .draft_head = run.draft_head,
      .teacher = TeacherOf(run.frozen, sample),
      .teacher_rows = torch::tensor(teacher_rows),
      .labels = run.frozen.head_row.index_select(0, torch::tensor(labels).to(device)).to(torch::kInt64),
      .ce_weights = head_w * run.shares.ce,
      .l1_weights = head_w * run.shares.l1,
      .log_acceptance = run.shares.log_acceptance,
      .places = std::move(places)};
  const Tensor w2 = heads.bias.defined() ? Find(weights, "markov_head.markov_w2.weight").leaf : Tensor();
  const HeadLoss loss = ComputeHeadLoss(pick(hidden), pick(heads.bias), w2, inputs);
  result.total = loss.loss;
  result.values.ce = loss.ce;
  result.values.l1 = loss.l1;
  if (heads.confidence.defined() && run.shares.confidence > 0) {
    const Tensor logits = pick(heads.confidence), accepted = loss.l1.mul(-0.5).add(1).clamp(0, 1);
    const Tensor bce = torch::binary_cross_entropy_with_logits(logits, accepted, {}, {}, at::Reduction::None);
    result.total = result.total + (bce * w).sum() * run.shares.confidence;
    result.values.confidence = logits.detach();
    result.values.confidence_bce = bce.detach();
  }
  return result;
}

}  // namespace dspark

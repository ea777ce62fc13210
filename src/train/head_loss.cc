#include "train/head_loss.h"

#include <torch/autograd.h>

#include <algorithm>

#include "core/check.h"
#include "train/dpace.h"
#include "train/loss_rows.h"

namespace dspark {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// The distinct teacher rows of some slots, and which of them each slot has.
struct TeacherRows {
  std::vector<int64_t> rows;  // ascending
  std::vector<size_t> of_slot;
};

TeacherRows Distinct(const int64_t* rows, int64_t n) {
  TeacherRows t{{rows, rows + n}, {}};
  std::ranges::sort(t.rows);
  t.rows.erase(std::unique(t.rows.begin(), t.rows.end()), t.rows.end());
  for (int64_t i = 0; i < n; ++i)
    t.of_slot.push_back(size_t(std::ranges::lower_bound(t.rows, rows[i]) - t.rows.begin()));
  return t;
}

template <class T>
const LossRowKernels<T>& KernelsOf(Isa isa) {
  if constexpr (sizeof(T) == 4) {
    return LossRowsFloat(isa);
  } else {
    return LossRowsBf16(isa);
  }
}

// Logits [n, Vd] become their gradients; ce and l1 [n] of the slots `first` … are filled in.
template <class T>
void LossOfRows(const HeadLossInputs& in, int64_t first, const Tensor& logits, const Tensor& teacher,
                const TeacherRows& rows, Tensor* ce, Tensor* l1) {
  const LossRowKernels<T>& kernels = KernelsOf<T>(in.isa);
  const int64_t vocab = logits.size(1);
  const auto row_of = [](const Tensor& t, size_t i) {
    return static_cast<T*>(t.data_ptr()) + int64_t(i) * t.size(1);
  };
  std::vector<float> log_sums(rows.rows.size());
  for (size_t i = 0; i < log_sums.size(); ++i)
    log_sums[i] = kernels.log_sum_exp(row_of(teacher, i), teacher.size(1));
  const bool soft = !in.labels.defined();
  const Tensor labels = soft ? LikeliestOf(in.teacher, rows.rows, teacher).contiguous() : in.labels;
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const int64_t slot = first + i;
    const int64_t label = labels.data_ptr<int64_t>()[soft ? int64_t(rows.of_slot[size_t(i)]) : slot];
    LossRow<T> row{.logits = row_of(logits, size_t(i)),
                   .teacher = row_of(teacher, rows.of_slot[size_t(i)]),
                   .teacher_log_sum = log_sums[rows.of_slot[size_t(i)]],
                   .teacher_has_more = teacher.size(1) > vocab,
                   .label = label < vocab ? int32_t(label) : -1,
                   .ce_weight = in.ce_weights.data_ptr<float>()[slot],
                   .l1_weight = in.l1_weights.data_ptr<float>()[slot],
                   .log_acceptance = in.log_acceptance};
    (soft ? kernels.soft_loss : kernels.loss)(vocab, &row);
    ce->data_ptr<float>()[slot] = row.ce;
    l1->data_ptr<float>()[slot] = row.l1;
  }
}

// The same with torch's own operations, for tensors that do not lie in this machine's memory.
void LossOfRowsByTorch(const HeadLossInputs& in, int64_t first, Tensor logits, const Tensor& teacher,
                       const TeacherRows& rows, Tensor* ce, Tensor* l1) {
  const int64_t n = logits.size(0), vocab = logits.size(1);
  const auto slots = [&](const Tensor& t) { return t.narrow(0, first, n); };
  const bool soft = !in.labels.defined();
  const Tensor of_slot =
      torch::tensor(std::vector<int64_t>(rows.of_slot.begin(), rows.of_slot.end())).to(logits.device());
  const Tensor log_p = logits.to(torch::kFloat32).log_softmax(-1), p = log_p.exp();
  const Tensor q_all = teacher.to(torch::kFloat32).softmax(-1).index_select(0, of_slot);
  const Tensor q = q_all.narrow(1, 0, vocab), outside = q_all.narrow(1, vocab, q_all.size(1) - vocab).sum(1);
  const Tensor labels = soft ? LikeliestOf(in.teacher, rows.rows, teacher).index_select(0, of_slot)
                             : slots(in.labels),
               known = labels.lt(vocab).to(torch::kFloat32);
  const Tensor row = labels.clamp_max(vocab - 1).unsqueeze(1);
  const Tensor wanted = soft ? q / q.sum(1, true).clamp_min(1e-30) : torch::zeros_like(p).scatter_(1, row, 1);
  slots(*ce).copy_((wanted * log_p).sum(1).neg().mul(known));
  slots(*l1).copy_((p - q).abs().sum(1).add(outside));
  const Tensor ce_weight = slots(in.ce_weights).mul(known).unsqueeze(1);
  const Tensor acceptance = slots(*l1).mul(-0.5).add(1).clamp_min(kLeastAcceptance);
  const Tensor slope = in.log_acceptance ? acceptance.reciprocal().mul(0.5) : torch::ones_like(acceptance);
  const Tensor l1_weight = slots(in.l1_weights).mul(slope).unsqueeze(1), sign = (p - q).sign();
  Tensor g = p.mul(ce_weight + l1_weight * (sign - p.mul(sign).sum(1, true)));
  logits.copy_(g.sub_(ce_weight * wanted));
}

void LossOfChunk(const HeadLossInputs& in, int64_t first, const Tensor& logits, Tensor* ce, Tensor* l1) {
  const Tensor slots = in.teacher_rows.narrow(0, first, logits.size(0)).cpu();
  const TeacherRows rows = Distinct(slots.data_ptr<int64_t>(), slots.numel());
  const Tensor teacher = LogitsOf(in.teacher, rows.rows, logits.size(1), logits.scalar_type());
  if (!logits.is_cpu() || in.by_torch) return LossOfRowsByTorch(in, first, logits, teacher, rows, ce, l1);
  if (logits.scalar_type() == torch::kFloat32)
    return LossOfRows<float>(in, first, logits, teacher, rows, ce, l1);
  LossOfRows<uint16_t>(in, first, logits, teacher, rows, ce, l1);
}

// How many slots from `first` on are in memory at once: for D-PACE whole blocks, whose slots weigh each
// other.
int64_t RowsOfChunk(const HeadLossInputs& in, int64_t first, int64_t n) {
  int64_t end = std::min(first + in.chunk, n);
  while (!in.places.empty() && end < n && in.places[size_t(end)] > 0) ++end;
  return end - first;
}

// What D-PACE gives the slots `first` …, [n] on the CPU. ce: theirs.
Tensor DpaceOfChunk(const HeadLossInputs& in, int64_t first, const Tensor& ce) {
  const int64_t n = ce.size(0);
  const Tensor drafted = in.labels.narrow(0, first, n).lt(in.draft_head.size(0));
  const Tensor p = ce.neg().exp().mul(drafted).cpu();
  const auto places = in.places.begin() + first;
  return torch::tensor(DpaceWeights({places, places + n}, {p.data_ptr<float>(), p.data_ptr<float>() + n}));
}

// Gradients are made as the losses are, while the logits are there, and only scaled in the backward pass.
struct HeadLossFunction : Function<HeadLossFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& hidden, const Tensor& bias,
                               const Tensor& markov_w2, const HeadLossInputs& in) {
    const int64_t n = hidden.size(0), d = hidden.size(1);
    const torch::ScalarType precision = in.draft_head.scalar_type();
    const Tensor x = torch::cat({hidden, bias}, 1);
    Tensor ce = torch::zeros({n}, hidden.options()), l1 = ce.clone(), dx = torch::empty_like(x);
    Tensor dw2 = torch::zeros_like(markov_w2), weight = torch::ones_like(ce);
    for (int64_t first = 0, rows = 0; first < n; first += rows) {
      rows = RowsOfChunk(in, first, n);
      Tensor x_rows = x.narrow(0, first, rows);
      const Tensor logits = x_rows.to(precision).mm(in.draft_head.t());
      LossOfChunk(in, first, logits, &ce, &l1);
      const Tensor dx_rows = dx.narrow(0, first, rows).copy_(logits.mm(in.draft_head));
      if (!in.places.empty()) {
        const Tensor w =
            weight.narrow(0, first, rows).copy_(DpaceOfChunk(in, first, ce.narrow(0, first, rows)));
        dx_rows.mul_(w.unsqueeze(1));
        x_rows = x_rows * w.unsqueeze(1);
      }
      if (dw2.numel() > 0) dw2.add_(logits.t().mm(x_rows.narrow(1, d, x.size(1) - d).to(precision)));
    }
    context->save_for_backward({dx, dw2});
    context->saved_data["width"] = d;
    const Tensor distance =
        in.log_acceptance ? l1.mul(-0.5).add_(1).clamp_min_(kLeastAcceptance).log_().neg_() : l1;
    const Tensor loss = ce.mul(in.ce_weights).add_(distance.mul(in.l1_weights)).mul_(weight).sum();
    context->mark_non_differentiable({ce, l1});
    return {loss, ce, l1};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const int64_t d = context->saved_data["width"].toInt();
    const Tensor dx = saved[0].mul(gradients[0]);
    return {dx.narrow(1, 0, d), dx.narrow(1, d, dx.size(1) - d), saved[1].mul(gradients[0]), {}};
  }
};

}  // namespace

HeadLoss ComputeHeadLoss(const Tensor& hidden, const Tensor& bias, const Tensor& markov_w2,
                         const HeadLossInputs& inputs) {
  DSPARK_CHECK(inputs.places.empty() || inputs.labels.defined());
  const bool markov = bias.defined();
  const Tensor none = torch::empty({hidden.size(0), 0}, hidden.options());
  const variable_list out =
      HeadLossFunction::apply(hidden, markov ? bias : none, markov ? markov_w2 : none, inputs);
  return {out[0], out[1], out[2]};
}

}  // namespace dspark

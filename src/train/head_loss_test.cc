#include "train/head_loss.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include <cmath>

namespace dspark::test {
namespace {

// 300 slots of width 8 with a Markov head of rank 4; 40 of 57 ids are drafted.
struct Inputs {
  Inputs() {
    torch::manual_seed(1);
    in.draft_head = torch::randn({40, 12});
    in.teacher.head = torch::randn({57, 8});
    in.teacher.hidden = torch::randn({50, 8}) * 0.5;
    in.teacher_rows = torch::randint(50, {300}, torch::kInt64);
    in.labels = torch::randint(57, {300}, torch::kInt64);
    in.ce_weights = torch::rand({300});
    in.l1_weights = torch::rand({300});
    hidden = torch::randn({300, 8}) * 0.3;  // no slot is hopeless: the formula has no bound then
    bias = torch::randn({300, 4}) * 0.3;
  }
  HeadLossInputs in;
  torch::Tensor hidden, bias;
};

struct Outcome {
  HeadLoss loss;
  std::vector<torch::Tensor> gradients;
};

Outcome LossOf(const Inputs& inputs) {
  const torch::Tensor hidden = inputs.hidden.clone().requires_grad_(),
                      bias = inputs.bias.clone().requires_grad_();
  const torch::Tensor w2 = inputs.in.draft_head.narrow(1, 8, 4).clone().requires_grad_();
  Outcome out{ComputeHeadLoss(hidden, bias, w2, inputs.in), {}};
  out.loss.loss.backward();
  out.gradients = {hidden.grad(), bias.grad(), w2.grad()};
  return out;
}

// As a share of the largest value.
double Distance(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

TEST(HeadLoss, TorchsOperationsGiveTheKernels) {
  Inputs inputs;
  for (const bool log_acceptance : {false, true}) {
    inputs.in.log_acceptance = log_acceptance;
    inputs.in.by_torch = false;
    const Outcome kernels = LossOf(inputs);
    inputs.in.by_torch = true;
    const Outcome torchs = LossOf(inputs);
    EXPECT_LT(Distance(kernels.loss.loss, torchs.loss.loss), 1e-5);
    EXPECT_LT(Distance(kernels.loss.ce, torchs.loss.ce), 1e-5);
    EXPECT_LT(Distance(kernels.loss.l1, torchs.loss.l1), 1e-5);
    for (size_t i = 0; i < 3; ++i) EXPECT_LT(Distance(kernels.gradients[i], torchs.gradients[i]), 1e-5) << i;
  }
}

// The formula as torch differentiates it by itself.
TEST(HeadLoss, IsWhatAutogradMakesOfTheFormula) {
  Inputs inputs;
  for (const bool log_acceptance : {false, true}) {
    inputs.in.log_acceptance = log_acceptance;
    const Outcome ours = LossOf(inputs);
    const torch::Tensor hidden = inputs.hidden.clone().requires_grad_();
    const torch::Tensor logits = torch::cat({hidden, inputs.bias}, 1).mm(inputs.in.draft_head.t());
    const torch::Tensor log_p = logits.log_softmax(-1);
    const torch::Tensor p = torch::constant_pad_nd(log_p.exp(), {0, 17});
    const torch::Tensor q = inputs.in.teacher.hidden.index_select(0, inputs.in.teacher_rows)
                                .mm(inputs.in.teacher.head.t())
                                .softmax(-1);
    const torch::Tensor l1 = (p - q).abs().sum(1), known = inputs.in.labels.lt(40);
    const torch::Tensor label = inputs.in.labels.clamp_max(39).unsqueeze(1);
    const torch::Tensor ce = log_p.gather(1, label).squeeze(1).neg() * known;
    const torch::Tensor distance = log_acceptance ? (1 - l1 / 2).log().neg() : l1;
    const torch::Tensor loss = (ce * inputs.in.ce_weights + distance * inputs.in.l1_weights).sum();
    loss.backward();
    EXPECT_LT(Distance(ours.loss.loss, loss), 1e-5);
    EXPECT_LT(Distance(ours.gradients[0], hidden.grad()), 1e-5);
  }
}

// Where a slot's acceptance is below the bound, its loss is that of the bound and its slope the bound's, in
// loss and gradient alike.
TEST(HeadLoss, HopelessSlotsStopAtTheBound) {
  Inputs inputs;
  HeadLossInputs& in = inputs.in;
  in.log_acceptance = true;
  in.draft_head = torch::cat({in.teacher.head.narrow(0, 0, 40), torch::zeros({40, 4})}, 1).contiguous();
  in.teacher.hidden = in.teacher.hidden * 5;
  inputs.hidden = -in.teacher.hidden.index_select(0, in.teacher_rows);  // the target's least likely tokens
  in.ce_weights = torch::zeros({300});
  const torch::Tensor acceptance = 1 - LossOf(inputs).loss.l1 / 2;
  const torch::Tensor hopeless = acceptance.gt(1e-5) * acceptance.lt(1e-3);
  ASSERT_GT(hopeless.sum().item<int64_t>(), 50);
  in.l1_weights = in.l1_weights * hopeless;
  for (const bool by_torch : {false, true}) {
    in.by_torch = by_torch;
    in.log_acceptance = true;
    const Outcome bounded = LossOf(inputs);
    in.log_acceptance = false;
    const Outcome distance = LossOf(inputs);
    EXPECT_LT(Distance(bounded.loss.loss, in.l1_weights.sum() * -std::log(1e-3)), 1e-5);
    EXPECT_LT(Distance(bounded.gradients[0], distance.gradients[0] * (0.5 / 1e-3)), 1e-2);
  }
}

}  // namespace
}  // namespace dspark::test

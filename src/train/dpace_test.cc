#include "train/dpace.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "train/head_loss.h"

namespace dspark::test {
namespace {

using torch::Tensor;

// Blocks of random lengths from 1 to 7 with a Markov head of rank 4; 40 of 57 ids are drafted.
struct Blocks {
  Blocks(uint64_t seed, int blocks, bool log_acceptance) {
    torch::manual_seed(seed);
    for (int b = 0; b < blocks; ++b) {
      const int64_t length = torch::randint(1, 8, {1}).item<int64_t>();
      for (int64_t j = 0; j < length; ++j) in.places.push_back(j);
    }
    const int64_t n = int64_t(in.places.size());
    in.draft_head = torch::randn({40, 12});
    in.teacher.head = torch::randn({57, 8});
    in.teacher.hidden = torch::randn({50, 8}) * 0.5;
    in.teacher_rows = torch::randint(50, {n}, torch::kInt64);
    in.labels = torch::randint(57, {n}, torch::kInt64);
    in.ce_weights = torch::rand({n});
    in.l1_weights = torch::rand({n});
    in.log_acceptance = log_acceptance;
    hidden = torch::randn({n, 8}) * 0.3;
    bias = torch::randn({n, 4}) * 0.3;
  }
  HeadLossInputs in;
  Tensor hidden, bias;
};

struct Outcome {
  Tensor loss, ce, l1, dhidden, dbias, dw2;
};

Outcome LossOf(const Blocks& blocks) {
  const Tensor hidden = blocks.hidden.clone().requires_grad_(), bias = blocks.bias.clone().requires_grad_();
  const Tensor w2 = blocks.in.draft_head.narrow(1, 8, 4).clone().requires_grad_();
  const HeadLoss loss = ComputeHeadLoss(hidden, bias, w2, blocks.in);
  loss.loss.backward();
  return {loss.loss.detach(), loss.ce, loss.l1, hidden.grad(), bias.grad(), w2.grad()};
}

// The definition, slot by slot. p: [N] of each label, 0 of those that are not drafted.
std::vector<double> WeightsByDefinition(const std::vector<int64_t>& places, const std::vector<double>& p) {
  std::vector<double> weights;
  for (size_t slot = 0; slot < places.size(); ++slot) {
    const size_t first = slot - size_t(places[slot]);
    double sum = 0;
    for (size_t m = slot; m < places.size() && (m == slot || places[m] != 0); ++m) {
      double product = 1;
      for (size_t i = first; i <= m; ++i) product *= 0.5 + 0.5 * p[i];
      sum += product;
    }
    weights.push_back(sum);
  }
  return weights;
}

// The loss as torch differentiates it by itself, the weights left out of that.
Tensor LossByTorch(const Blocks& blocks, const Tensor& hidden, const Tensor& bias, const Tensor& w2) {
  const HeadLossInputs& in = blocks.in;
  const Tensor logits = hidden.mm(in.draft_head.narrow(1, 0, 8).t()) + bias.mm(w2.t());
  const Tensor log_p = logits.log_softmax(-1);
  const Tensor q = in.teacher.hidden.index_select(0, in.teacher_rows).mm(in.teacher.head.t()).softmax(-1);
  const Tensor l1 = (torch::constant_pad_nd(log_p.exp(), {0, 17}) - q).abs().sum(1), known = in.labels.lt(40);
  const Tensor log_label = log_p.gather(1, in.labels.clamp_max(39).unsqueeze(1)).squeeze(1);
  const Tensor p = (log_label.exp() * known).detach().to(torch::kFloat64);
  const std::vector<double> weights =
      WeightsByDefinition(in.places, {p.data_ptr<double>(), p.data_ptr<double>() + p.numel()});
  const Tensor distance = in.log_acceptance ? (1 - l1 / 2).log().neg() : l1;
  const Tensor losses = log_label.neg() * known * in.ce_weights + distance * in.l1_weights;
  return (losses * torch::tensor(weights, torch::kFloat32)).sum();
}

double Distance(const Tensor& a, const Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

TEST(Dpace, WeightsByHand) {
  const std::vector<float> weights = DpaceWeights({0, 1, 2, 0, 0, 1}, {1, 0, 0.5f, 0, 1, 1});
  const float expected[] = {1 + 0.5f + 0.375f, 0.5f + 0.375f, 0.375f, 0.5f, 2, 1};
  for (size_t i = 0; i < weights.size(); ++i) EXPECT_FLOAT_EQ(weights[i], expected[i]) << i;
  EXPECT_TRUE(DpaceWeights({}, {}).empty());
}

TEST(Dpace, IsWhatAutogradMakesOfTheDefinition) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    Blocks blocks(seed, int(1 + 30 * (seed % 3)), seed % 2 == 0);
    blocks.in.by_torch = seed > 4;
    const Tensor hidden = blocks.hidden.clone().requires_grad_(), bias = blocks.bias.clone().requires_grad_();
    const Tensor w2 = blocks.in.draft_head.narrow(1, 8, 4).clone().requires_grad_();
    const Tensor expected = LossByTorch(blocks, hidden, bias, w2);
    expected.backward();
    const Outcome ours = LossOf(blocks);
    EXPECT_LT(Distance(ours.loss, expected), 1e-5);
    EXPECT_LT(Distance(ours.dhidden, hidden.grad()), 1e-5);
    EXPECT_LT(Distance(ours.dbias, bias.grad()), 1e-5);
    EXPECT_LT(Distance(ours.dw2, w2.grad()), 1e-5);
  }
}

// Of the weighted sum with the weights held where they are.
TEST(Dpace, GradientsByFiniteDifferences) {
  Blocks blocks(3, 3, true);
  const Outcome ours = LossOf(blocks);
  const int64_t n = int64_t(blocks.in.places.size());
  std::vector<double> p;
  for (int64_t i = 0; i < n; ++i) {
    const bool drafted = blocks.in.labels[i].item<int64_t>() < 40;
    p.push_back(drafted ? std::exp(-ours.ce[i].item<double>()) : 0);
  }
  const std::vector<double> weights = WeightsByDefinition(blocks.in.places, p);
  const auto held = [&](const Blocks& at) {
    const Outcome out = LossOf(at);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double distance = -std::log(1 - out.l1[i].item<double>() / 2);
      sum += weights[size_t(i)] * (at.in.ce_weights[i].item<double>() * out.ce[i].item<double>() +
                                   at.in.l1_weights[i].item<double>() * distance);
    }
    return sum;
  };
  EXPECT_NEAR(ours.loss.item<double>(), held(blocks), 1e-4);
  for (int64_t slot = 0; slot < n; ++slot) {
    for (const int64_t c : {0, 5}) {
      Blocks up = blocks, down = blocks;
      up.hidden = blocks.hidden.clone();
      down.hidden = blocks.hidden.clone();
      up.hidden[slot][c] += 2e-3;
      down.hidden[slot][c] -= 2e-3;
      EXPECT_NEAR(ours.dhidden[slot][c].item<double>(), (held(up) - held(down)) / 4e-3, 2e-3) << slot;
    }
  }
}

// In bf16, which training is done in unless said.
TEST(Dpace, InBf16) {
  for (const bool by_torch : {false, true}) {
    Blocks blocks(4, 30, false);
    blocks.in.l1_weights = torch::zeros_like(blocks.in.l1_weights);  // its gradient jumps where p is q
    blocks.in.by_torch = by_torch;
    const Outcome fine = LossOf(blocks);
    blocks.in.draft_head = blocks.in.draft_head.to(torch::kBFloat16);
    blocks.in.teacher.head = blocks.in.teacher.head.to(torch::kBFloat16);
    const Outcome coarse = LossOf(blocks);
    EXPECT_LT(Distance(coarse.loss, fine.loss), 2e-2);
    EXPECT_LT(Distance(coarse.ce, fine.ce), 2e-2);
    EXPECT_LT((coarse.dhidden - fine.dhidden).norm().item<double>(),
              3e-2 * fine.dhidden.norm().item<double>());
    EXPECT_LT((coarse.dw2 - fine.dw2).norm().item<double>(), 3e-2 * fine.dw2.norm().item<double>());
  }
}

// However many slots are in memory at once; a block of more than those stays whole.
TEST(Dpace, ChunksDoNotShow) {
  Blocks blocks(9, 120, false);
  ASSERT_GT(blocks.in.places.size(), 400u);
  blocks.in.chunk = 1 << 20;
  const Outcome whole = LossOf(blocks);
  for (const int64_t chunk : {1, 3, 7, 10, 256}) {
    SCOPED_TRACE(chunk);
    blocks.in.chunk = chunk;
    const Outcome ours = LossOf(blocks);
    EXPECT_LT(Distance(ours.loss, whole.loss), 1e-6);
    EXPECT_LT(Distance(ours.dhidden, whole.dhidden), 1e-6);
    EXPECT_LT(Distance(ours.dw2, whole.dw2), 1e-5);
  }
}

}  // namespace
}  // namespace dspark::test

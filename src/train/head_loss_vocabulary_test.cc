#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "train/head_loss.h"

namespace dspark::test {
namespace {

using torch::Tensor;

constexpr int64_t kSlots = 6, kWidth = 8, kVocab = 10, kDrafted = 6, kRank = 3;

// The same with torch's own operations and everything in memory.
Tensor LossByTorch(const Tensor& hidden, const Tensor& bias, const Tensor& w2, const HeadLossInputs& in) {
  const Tensor logits = hidden.mm(in.teacher.head.narrow(0, 0, kDrafted).t()) + bias.mm(w2.t());
  const Tensor log_p = logits.log_softmax(-1);
  const Tensor q = in.teacher.hidden.index_select(0, in.teacher_rows).mm(in.teacher.head.t()).softmax(-1);
  // A label without a row has no cross-entropy; what the teacher gives to such ids is all distance.
  const Tensor known = in.labels.lt(kDrafted).to(torch::kFloat32);
  const Tensor ce = -log_p.gather(1, in.labels.clamp_max(kDrafted - 1).unsqueeze(1)).squeeze(1) * known;
  const Tensor l1 =
      (log_p.exp() - q.narrow(1, 0, kDrafted)).abs().sum(1) + q.narrow(1, kDrafted, kVocab - kDrafted).sum(1);
  return (ce * in.ce_weights + l1 * in.l1_weights).sum();
}

TEST(HeadLoss, IdsWithoutARow) {
  torch::manual_seed(7);
  const Tensor teacher_head = torch::randn({kVocab, kWidth});
  const Tensor hidden = torch::randn({kSlots, kWidth}).requires_grad_();
  const Tensor bias = torch::randn({kSlots, kRank}).requires_grad_();
  const Tensor w2 = torch::randn({kDrafted, kRank}).requires_grad_();
  HeadLossInputs in{
      .draft_head = torch::cat({teacher_head.narrow(0, 0, kDrafted), w2.detach()}, 1).contiguous(),
      .teacher = {.head = teacher_head, .hidden = torch::randn({4, kWidth}), .top_rows = {}, .top_log_p = {}},
      .teacher_rows = torch::tensor(std::vector<int64_t>{0, 1, 1, 2, 3, 3}),
      .labels = torch::tensor(std::vector<int64_t>{0, 6, 5, 9, 2, 7}),
      .ce_weights = torch::rand({kSlots}) + 0.5,
      .l1_weights = torch::rand({kSlots}) + 0.5};
  const Tensor expected = LossByTorch(hidden, bias, w2, in);
  const auto gradients = torch::autograd::grad({expected}, {hidden, bias, w2});
  const HeadLoss loss = ComputeHeadLoss(hidden, bias, w2, in);
  EXPECT_NEAR(loss.loss.item<double>(), expected.item<double>(), 1e-4);
  const auto ours = torch::autograd::grad({loss.loss}, {hidden, bias, w2});
  for (size_t i = 0; i < ours.size(); ++i)
    EXPECT_LT((ours[i] - gradients[i]).abs().max().item<double>(), 1e-4) << i;
  for (const int slot : {1, 3, 5}) EXPECT_EQ(loss.ce[slot].item<float>(), 0) << slot;
}

}  // namespace
}  // namespace dspark::test

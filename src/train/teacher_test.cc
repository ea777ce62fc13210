#include "train/teacher.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include <cmath>

#include "train/head_loss.h"
#include "train/loss_rows.h"

namespace dspark::test {
namespace {

using torch::Tensor;

constexpr int64_t kSlots = 60, kRows = 20, kWidth = 8, kVocab = 57;

// Slots whose teacher is the hidden states; `drafted` ids of the vocabulary are drafted.
struct Inputs {
  Inputs(int64_t drafted, bool soft, bool log_acceptance) {
    torch::manual_seed(5);
    in.teacher.head = torch::randn({kVocab, kWidth});
    in.teacher.hidden = torch::randn({kRows, kWidth});
    in.draft_head = in.teacher.head.narrow(0, 0, drafted).contiguous();
    in.teacher_rows = torch::randint(kRows, {kSlots}, torch::kInt64);
    if (!soft) in.labels = torch::randint(kVocab, {kSlots}, torch::kInt64);
    in.ce_weights = torch::rand({kSlots});
    in.l1_weights = torch::rand({kSlots});
    in.log_acceptance = log_acceptance;
    hidden = torch::randn({kSlots, kWidth}) * 0.5;
  }
  // The k likeliest of each row in place of the hidden states.
  void KeepTop(int64_t k) {
    const auto [log_p, rows] = in.teacher.hidden.mm(in.teacher.head.t()).log_softmax(1).topk(k, 1);
    in.teacher = {in.teacher.head, {}, rows.contiguous(), log_p.contiguous()};
  }
  HeadLossInputs in;
  Tensor hidden;
};

struct Outcome {
  HeadLoss loss;
  Tensor gradient;
};

Outcome LossOf(const Inputs& inputs) {
  const Tensor hidden = inputs.hidden.clone().requires_grad_();
  const HeadLoss loss = ComputeHeadLoss(hidden, {}, {}, inputs.in);
  loss.loss.backward();
  return {loss, hidden.grad()};
}

void ExpectNear(const Tensor& a, const Tensor& b, double tolerance) {
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance * (1 + b.abs().max().item<double>()));
}

// Calls body(inputs) for every kind of loss; all ids drafted or 40 of 57, kernels or torch's operations.
template <class Body>
void ForEachLoss(const Body& body) {
  for (const int64_t drafted : {kVocab, int64_t{40}}) {
    for (const bool soft : {false, true}) {
      for (const bool log_acceptance : {false, true}) {
        for (const bool by_torch : {false, true}) {
          SCOPED_TRACE(
              fmt::format("{} drafted, soft {}, log {}, torch {}", drafted, soft, log_acceptance, by_torch));
          Inputs inputs(drafted, soft, log_acceptance);
          inputs.in.by_torch = by_torch;
          body(inputs);
        }
      }
    }
  }
}

TEST(Teacher, AListOfAllTokensIsTheWholeDistribution) {
  ForEachLoss([](Inputs& inputs) {
    const Outcome whole = LossOf(inputs);
    inputs.KeepTop(kVocab);
    const Outcome listed = LossOf(inputs);
    ExpectNear(listed.loss.loss, whole.loss.loss, 1e-5);
    ExpectNear(listed.loss.ce, whole.loss.ce, 1e-5);
    ExpectNear(listed.loss.l1, whole.loss.l1, 1e-5);
    ExpectNear(listed.gradient, whole.gradient, 1e-5);
  });
}

// The rule in doubles: q is known of the listed tokens, and all else is one more token that is not drafted.
struct Expected {
  double loss = 0;
  std::vector<double> ce, l1;
};
Expected Plain(const Inputs& inputs) {
  const HeadLossInputs& in = inputs.in;
  const int64_t drafted = in.draft_head.size(0), k = in.teacher.top_rows.size(1);
  const Tensor log_p =
      inputs.hidden.to(torch::kFloat64).mm(in.draft_head.to(torch::kFloat64).t()).log_softmax(1);
  Expected e;
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    const int64_t row = in.teacher_rows[slot].item<int64_t>();
    std::vector<double> q(static_cast<size_t>(drafted));
    for (int64_t j = 0; j < k; ++j) {
      const int64_t id = in.teacher.top_rows[row][j].item<int64_t>();
      if (id < drafted) q[size_t(id)] = std::exp(in.teacher.top_log_p[row][j].item<double>());
    }
    double known = 0, accepted = 0, ce = 0;
    for (int64_t id = 0; id < drafted; ++id) {
      known += q[size_t(id)];
      accepted += std::min(q[size_t(id)], std::exp(log_p[slot][id].item<double>()));
    }
    if (in.labels.defined()) {
      const int64_t label = in.labels[slot].item<int64_t>();
      ce = label < drafted ? -log_p[slot][label].item<double>() : 0;
    } else if (in.teacher.top_rows[row][0].item<int64_t>() < drafted) {
      for (int64_t id = 0; id < drafted; ++id) ce -= q[size_t(id)] / known * log_p[slot][id].item<double>();
    }
    e.ce.push_back(ce);
    e.l1.push_back(2 * (1 - accepted));
    const double distance =
        in.log_acceptance ? -std::log(std::max(accepted, double(kLeastAcceptance))) : e.l1.back();
    e.loss += in.ce_weights[slot].item<double>() * ce + in.l1_weights[slot].item<double>() * distance;
  }
  return e;
}

TEST(Teacher, ShortListsByAPlainReference) {
  for (const int64_t k : {1, 2, 9}) {
    SCOPED_TRACE(k);
    ForEachLoss([&](Inputs& inputs) {
      inputs.KeepTop(k);
      const Outcome ours = LossOf(inputs);
      const Expected expected = Plain(inputs);
      EXPECT_NEAR(ours.loss.loss.item<double>(), expected.loss, 1e-3);
      for (int64_t slot = 0; slot < kSlots; ++slot) {
        EXPECT_NEAR(ours.loss.ce[slot].item<double>(), expected.ce[size_t(slot)], 1e-4) << slot;
        EXPECT_NEAR(ours.loss.l1[slot].item<double>(), expected.l1[size_t(slot)], 1e-5) << slot;
      }
      EXPECT_TRUE(ours.gradient.isfinite().all().item<bool>());
      int checked = 0;
      for (const int64_t slot : {0, 14, 27, 38, 59}) {
        if (expected.l1[size_t(slot)] > 1.99) continue;  // the slope may be at its bound
        ++checked;
        Inputs up = inputs, down = inputs;
        up.hidden = inputs.hidden.clone();
        down.hidden = inputs.hidden.clone();
        up.hidden[slot][3] += 1e-3;
        down.hidden[slot][3] -= 1e-3;
        EXPECT_NEAR(ours.gradient[slot][3].item<double>(), (Plain(up).loss - Plain(down).loss) / 2e-3, 5e-3)
            << slot;
      }
      EXPECT_GE(checked, 1);
    });
  }
}

// In bf16, which training is done in unless said, the loss is that of fp32 but for 8 bits.
TEST(Teacher, ListsInBf16) {
  ForEachLoss([](Inputs& inputs) {
    inputs.KeepTop(9);
    const Outcome fine = LossOf(inputs);
    inputs.in.draft_head = inputs.in.draft_head.to(torch::kBFloat16);
    const Outcome coarse = LossOf(inputs);
    ExpectNear(coarse.loss.loss, fine.loss.loss, 5e-2);
    ExpectNear(coarse.loss.ce, fine.loss.ce, 2e-2);
    ExpectNear(coarse.loss.l1, fine.loss.l1, 2e-2);
    EXPECT_TRUE(coarse.gradient.isfinite().all().item<bool>());
  });
}

// Short of the truth by no more than what the list leaves out.
TEST(Teacher, ListsNeverPromiseAnAcceptanceThatIsNotThere) {
  Inputs inputs(kVocab, false, false);
  const Tensor whole = LossOf(inputs).loss.l1;
  inputs.KeepTop(9);
  const Tensor left_out =
      (1 - inputs.in.teacher.top_log_p.exp().sum(1)).index_select(0, inputs.in.teacher_rows);
  const Tensor lost = (LossOf(inputs).loss.l1 - whole) / 2;
  EXPECT_GT(lost.min().item<double>(), -1e-6);
  EXPECT_GT(lost.max().item<double>(), 1e-3);
  EXPECT_LT((lost - left_out).max().item<double>(), 1e-6);
}

TEST(Teacher, ReadsASample) {
  FrozenWeights frozen{{}, torch::randn({6, 2}), torch::tensor({5, 4, 3, 2, 1, 0}, torch::kInt32)};
  TrainSample sample;
  sample.ids = {1, 2};
  sample.last_hidden = {1, 2, 3, 4};
  EXPECT_EQ(TeacherOf(frozen, sample).hidden[1][0].item<float>(), 3);
  sample.last_hidden.clear();
  sample.top = {{0, 1, 2, 4, 5, 0}, {-1, -2, -3, -4, -5, -6}};
  const SampleTeacher teacher = TeacherOf(frozen, sample);
  EXPECT_FALSE(teacher.hidden.defined());
  EXPECT_EQ(teacher.top_rows[1][0].item<int64_t>(), 1);
  EXPECT_EQ(teacher.top_log_p[1][2].item<float>(), -6);
  const Tensor logits = LogitsOf(teacher, {1}, 2, torch::kFloat32);  // rows 0 (id 5) and 1 (id 4) are drafted
  EXPECT_FLOAT_EQ(logits[0][0].item<float>(), -5);
  EXPECT_FLOAT_EQ(logits[0][1].item<float>(), -4);
  EXPECT_NEAR(logits[0][2].item<float>(), std::log(1 - std::exp(-5.0) - std::exp(-4.0)), 1e-6);
  EXPECT_EQ(LikeliestOf(teacher, {1, 0}, logits)[1].item<int64_t>(), 5);
}

}  // namespace
}  // namespace dspark::test

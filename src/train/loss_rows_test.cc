#include "train/loss_rows.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/float16.h"
#include "core/rng.h"

namespace dspark::test {
namespace {

std::vector<float> Logits(uint64_t seed, size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = UniformFloat(seed, i, Purpose::kTest) * 12 - 6;
  return v;
}

double LogSum(const std::vector<float>& logits) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(double(x));
  return std::log(sum);
}

// What the kernel shall compute, in doubles.
struct Expected {
  double ce, l1;
  double Total(const LossRow<float>& row) const {
    return row.ce_weight * ce + row.l1_weight * (row.log_acceptance ? -std::log(1 - l1 / 2) : l1);
  }
};
Expected Compute(const std::vector<float>& logits, const std::vector<float>& teacher, int label) {
  const double p_sum = LogSum(logits), q_sum = LogSum(teacher);
  Expected e{label < 0 ? 0 : p_sum - double(logits[size_t(label)]), 0};
  for (size_t i = 0; i < teacher.size(); ++i) {
    const double p = i < logits.size() ? std::exp(double(logits[i]) - p_sum) : 0;
    e.l1 += std::abs(p - std::exp(double(teacher[i]) - q_sum));
  }
  return e;
}

LossRow<float> RowOf(std::vector<float>& logits, const std::vector<float>& teacher, int label) {
  return {.logits = logits.data(),
          .teacher = teacher.data(),
          .teacher_log_sum = float(LogSum(teacher)),
          .teacher_has_more = teacher.size() > logits.size(),
          .label = label,
          .ce_weight = 0.3f,
          .l1_weight = 0.7f};
}

void CheckByFiniteDifferences(size_t more, int label, bool log_acceptance) {
  std::vector<float> logits = Logits(1, 37);
  const std::vector<float> teacher = Logits(2, 37 + more), before = logits;
  LossRow<float> row = RowOf(logits, teacher, label);
  row.log_acceptance = log_acceptance;
  LossRowsFloat(Isa::kReference).loss(37, &row);
  const Expected expected = Compute(before, teacher, label);
  EXPECT_NEAR(row.ce, expected.ce, 1e-5);
  EXPECT_NEAR(row.l1, expected.l1, 1e-5);
  EXPECT_NEAR(LogAcceptanceLoss(row.l1), -std::log(1 - expected.l1 / 2), 1e-4);
  for (size_t i = 0; i < before.size(); ++i) {
    std::vector<float> up = before, down = before;
    up[i] += 1e-3f;
    down[i] -= 1e-3f;
    const double slope = (Compute(up, teacher, label).Total(row) - Compute(down, teacher, label).Total(row)) /
                         (double(up[i]) - double(down[i]));
    EXPECT_NEAR(logits[i], slope, 1e-4) << i;
  }
}

TEST(LossRows, ValuesAndGradientsByFiniteDifferences) {
  for (const size_t more : {0, 21}) {
    for (const int label : {-1, 0, 17, 36}) {
      for (const bool log_acceptance : {false, true}) {
        SCOPED_TRACE(fmt::format("{} more, label {}, log {}", more, label, log_acceptance));
        CheckByFiniteDifferences(more, label, log_acceptance);
      }
    }
  }
}

TEST(LossRows, HopelessSlotsKeepAFiniteSlope) {
  std::vector<float> logits = {50, 0, 0}, teacher = {0, 50, 0};
  LossRow<float> row = RowOf(logits, teacher, -1);
  row.log_acceptance = true;
  LossRowsFloat(Isa::kReference).loss(3, &row);
  for (const float gradient : logits) EXPECT_LT(std::abs(gradient), 1.0f);
  EXPECT_NEAR(LogAcceptanceLoss(row.l1), -std::log(kLeastAcceptance), 1e-3);
}

// The cross-entropy against the teacher's distribution over the draft vocabulary, in doubles.
double SoftTotal(const std::vector<float>& logits, const std::vector<float>& teacher,
                 const LossRow<float>& row) {
  const double p_sum = LogSum(logits),
               q_sum = LogSum({teacher.begin(), teacher.begin() + long(logits.size())});
  double ce = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    ce += std::exp(double(teacher[i]) - q_sum) * (p_sum - double(logits[i]));
  return row.ce_weight * ce + row.l1_weight * Compute(logits, teacher, -1).l1;
}

TEST(LossRows, SoftValuesAndGradientsByFiniteDifferences) {
  for (const size_t more : {0, 21}) {
    for (const float l1_weight : {0.0f, 0.7f}) {
      std::vector<float> logits = Logits(1, 37);
      const std::vector<float> teacher = Logits(2, 37 + more), before = logits;
      LossRow<float> row = RowOf(logits, teacher, 0);
      row.l1_weight = l1_weight;
      LossRowsFloat(Isa::kReference).soft_loss(37, &row);
      EXPECT_NEAR(row.ce_weight * row.ce + row.l1_weight * row.l1, SoftTotal(before, teacher, row), 1e-5);
      EXPECT_NEAR(row.l1, Compute(before, teacher, -1).l1, 1e-5);
      for (size_t i = 0; i < before.size(); ++i) {
        std::vector<float> up = before, down = before;
        up[i] += 1e-3f;
        down[i] -= 1e-3f;
        const double slope =
            (SoftTotal(up, teacher, row) - SoftTotal(down, teacher, row)) / (double(up[i]) - double(down[i]));
        EXPECT_NEAR(logits[i], slope, 1e-4) << i;
      }
    }
  }
}

TEST(LossRows, ASoftRowWithoutALabelHasNoCrossEntropy) {
  std::vector<float> logits = Logits(1, 37);
  const std::vector<float> teacher = Logits(2, 50);
  LossRow<float> row = RowOf(logits, teacher, -1);
  row.l1_weight = 0;
  LossRowsFloat(Isa::kReference).soft_loss(37, &row);
  EXPECT_EQ(row.ce, 0);
  EXPECT_GT(row.l1, 0);
  EXPECT_EQ(logits, std::vector<float>(37, 0.0f));
}

TEST(LossRows, SameBitsWithEveryInstructionSet) {
  for (const size_t n : {1, 15, 16, 100, 1000}) {
    const std::vector<float> teacher = Logits(4, n + 3);
    std::vector<float> reference = Logits(3, n);
    LossRow<float> expected = RowOf(reference, teacher, int(n) / 2);
    expected.log_acceptance = n % 2 == 0;
    LossRowsFloat(Isa::kReference).loss(int64_t(n), &expected);
    std::vector<uint16_t> low_teacher, low_reference;
    for (const float x : teacher) low_teacher.push_back(FloatToBf16(x));
    for (const float x : Logits(3, n)) low_reference.push_back(FloatToBf16(x));
    const std::vector<uint16_t> low_before = low_reference;
    const auto low_row = [&](std::vector<uint16_t>& logits) {
      return LossRow<uint16_t>{logits.data(), low_teacher.data(), 3.0f, true, int(n) / 2, 0.3f, 0.7f};
    };
    LossRow<uint16_t> low_expected = low_row(low_reference);
    LossRowsBf16(Isa::kReference).loss(int64_t(n), &low_expected);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni}) {
      if (!IsaSupported(isa)) continue;
      SCOPED_TRACE(IsaName(isa));
      std::vector<float> logits = Logits(3, n);
      LossRow<float> row = RowOf(logits, teacher, int(n) / 2);
      row.log_acceptance = expected.log_acceptance;
      LossRowsFloat(isa).loss(int64_t(n), &row);
      EXPECT_EQ(row.ce, expected.ce);
      EXPECT_EQ(row.l1, expected.l1);
      EXPECT_EQ(logits, reference);
      std::vector<uint16_t> low = low_before;
      LossRow<uint16_t> low_result = low_row(low);
      LossRowsBf16(isa).loss(int64_t(n), &low_result);
      EXPECT_EQ(low, low_reference);
      const auto soft = [&](Isa with) {
        std::vector<float> gradient = Logits(3, n);
        LossRow<float> soft_row = RowOf(gradient, teacher, 0);
        LossRowsFloat(with).soft_loss(int64_t(n), &soft_row);
        gradient.push_back(soft_row.ce);
        return gradient;
      };
      EXPECT_EQ(soft(isa), soft(Isa::kReference));
      EXPECT_EQ(low_result.l1, low_expected.l1);
    }
  }
}

}  // namespace
}  // namespace dspark::test

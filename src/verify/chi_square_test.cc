#include "chi_square.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/rng.h"

namespace dspark::test {
namespace {

// Where Q has a closed form: Q(1, x) = exp(-x), Q(1/2, x) = erfc(√x), Q(3, x) = exp(-x) (1 + x + x²/2).
TEST(IncompleteGamma, EqualsClosedForms) {
  for (double x : {1e-6, 0.1, 0.9, 1.0, 1.9, 2.1, 3.9, 4.1, 10.0, 50.0, 300.0}) {
    const double tolerance = 1e-12;
    EXPECT_NEAR(UpperIncompleteGamma(1, x) / std::exp(-x), 1, tolerance) << x;
    EXPECT_NEAR(UpperIncompleteGamma(0.5, x) / std::erfc(std::sqrt(x)), 1, tolerance) << x;
    EXPECT_NEAR(UpperIncompleteGamma(3, x) / (std::exp(-x) * (1 + x + x * x / 2)), 1, tolerance) << x;
  }
  EXPECT_EQ(UpperIncompleteGamma(2, 0), 1);
}

// Upper quantiles from the NIST/SEMATECH handbook, table 1.3.6.7.4.
TEST(IncompleteGamma, EqualsTabulatedChiSquareQuantiles) {
  const auto p_value = [](int degrees, double statistic) {
    return UpperIncompleteGamma(degrees / 2.0, statistic / 2);
  };
  EXPECT_NEAR(p_value(1, 3.841), 0.05, 2e-5);
  EXPECT_NEAR(p_value(5, 11.070), 0.05, 2e-5);
  EXPECT_NEAR(p_value(10, 29.588), 0.001, 1e-6);
  EXPECT_NEAR(p_value(100, 149.449), 0.001, 1e-6);
}

TEST(ChiSquare, PValuesOfFairDiceAreUniform) {
  const std::vector<double> fair(6, 1.0 / 6);
  int below_tenth = 0;
  for (uint64_t trial = 0; trial < 1000; ++trial) {
    std::vector<int64_t> counts(6);
    for (uint32_t i = 0; i < 600; ++i) ++counts[size_t(UniformDouble(trial, i, Purpose::kTest) * 6)];
    below_tenth += ChiSquarePValue(counts, fair) < 0.1;
  }
  EXPECT_NEAR(below_tenth, 100, 40);  // 4 standard deviations
}

TEST(ChiSquare, FindsALoadedDieAndAnImpossibleFace) {
  EXPECT_LT(ChiSquarePValue(std::vector<int64_t>{1100, 900, 1000}, std::vector<double>(3, 1.0 / 3)), 1e-4);
  EXPECT_GT(ChiSquarePValue(std::vector<int64_t>{1010, 990, 1000}, std::vector<double>(3, 1.0 / 3)), 0.5);
  EXPECT_EQ(ChiSquarePValue(std::vector<int64_t>{500, 500, 1}, std::vector<double>{0.5, 0.5, 0}), 0);
}

}  // namespace
}  // namespace dspark::test

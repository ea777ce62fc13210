// Pearson's chi-square test: the probability that draws from the expected distribution deviate at least this
// much.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace dspark::test {

// Q(a, x) = Γ(a, x) / Γ(a), a > 0, x ≥ 0. DLMF 8.11.4 (series, x < a + 1) and 8.9.2 (continued fraction, by
// the modified Lentz method).
inline double UpperIncompleteGamma(double a, double x) {
  constexpr double kPrecision = 1e-15, kTiny = 1e-300;
  if (x <= 0) return 1;
  const double scale = std::exp(-x + a * std::log(x) - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a, sum = term;
    for (double n = a + 1; term > sum * kPrecision; ++n) sum += term *= x / n;
    return 1 - scale * sum;
  }
  double b = x + 1 - a, c = 1 / kTiny, d = 1 / b, fraction = d;
  for (int i = 1; i < 10000; ++i) {
    const double numerator = -i * (i - a);
    b += 2;
    d = 1 / (std::abs(numerator * d + b) < kTiny ? kTiny : numerator * d + b);
    c = std::abs(b + numerator / c) < kTiny ? kTiny : b + numerator / c;
    fraction *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return scale * fraction;
}

// `counts` are draws by category, `probs` the exact probabilities. Categories with an expectation below 5 are
// pooled; a draw of an impossible category gives 0.
inline double ChiSquarePValue(std::span<const int64_t> counts, std::span<const double> probs) {
  int64_t draws = 0;
  for (int64_t count : counts) draws += count;
  double statistic = 0, pooled_expected = 0, pooled_count = 0;
  int categories = 0;
  const auto add = [&](double count, double expected) {
    statistic += (count - expected) * (count - expected) / expected;
    ++categories;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = probs[i] * double(draws);
    if (expected == 0 && counts[i] > 0) return 0;
    if (expected >= 5) {
      add(double(counts[i]), expected);
    } else {
      pooled_expected += expected;
      pooled_count += double(counts[i]);
    }
  }
  // An expectation below 1e-6 is rounding of zero: one draw there is already impossible.
  if (pooled_expected > 1e-6) add(pooled_count, pooled_expected);
  if (pooled_expected <= 1e-6 && pooled_count > 0) return 0;
  return categories > 1 ? UpperIncompleteGamma((categories - 1) / 2.0, statistic / 2) : 1;
}

}  // namespace dspark::test

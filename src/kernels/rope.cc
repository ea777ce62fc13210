#include "kernels/rope.h"

#include <cmath>
#include <vector>

#include "core/check.h"

namespace dspark {
namespace {

// Sine and cosine of 0 ≤ x < 2^20 within 1e-13, branch-free so that the compiler vectorises a loop of them: x
// = k π/2 + r with |r| ≤ π/4, the Taylor series of r, and the quadrant picks which of the two, and its sign.
inline void SinCos(double x, float* sine, float* cosine) {
  constexpr double kRound = 0x1.8p52;  // adding it leaves k in the low mantissa bits
  const double t = x * 0x1.45f306dc9c883p-1 + kRound;
  const double k = t - kRound;
  const double r = (x - k * 0x1.921fb544p0) - k * 0x1.0b4611a626331p-34;  // k times the first piece is exact
  const double r2 = r * r;
  double s = -1.0 / 1307674368000;
  s = s * r2 + 1.0 / 6227020800;
  s = s * r2 - 1.0 / 39916800;
  s = s * r2 + 1.0 / 362880;
  s = s * r2 - 1.0 / 5040;
  s = s * r2 + 1.0 / 120;
  s = s * r2 - 1.0 / 6;
  s = s * r2 * r + r;
  double c = 1.0 / 20922789888000;
  c = c * r2 - 1.0 / 87178291200;
  c = c * r2 + 1.0 / 479001600;
  c = c * r2 - 1.0 / 3628800;
  c = c * r2 + 1.0 / 40320;
  c = c * r2 - 1.0 / 720;
  c = c * r2 + 1.0 / 24;
  c = c * r2 - 0.5;
  c = c * r2 + 1.0;
  const double quarter = k * 0.25, turn = 4 * ((quarter + kRound) - kRound);
  const double quadrant = k - turn;  // -2 … 2, k modulo 4
  const bool odd = quadrant == 1 || quadrant == -1;
  const double sin_sign = quadrant == 2 || quadrant == -2 || quadrant == -1 ? -1.0 : 1.0;
  const double cos_sign = quadrant == 2 || quadrant == -2 || quadrant == 1 ? -1.0 : 1.0;
  *sine = float(sin_sign * (odd ? c : s));
  *cosine = float(cos_sign * (odd ? s : c));
}

}  // namespace

RopeTable::RopeTable(int positions, int dim, float theta, std::span<const float> divisors)
    : positions_(positions), dim_(dim), values_(size_t(positions) * size_t(dim)) {
  const int pairs = dim / 2;
  DSPARK_CHECK_EQ(dim % 2, 0);
  DSPARK_CHECK_LE(positions, 1 << 20);
  DSPARK_CHECK(divisors.empty() || divisors.size() == size_t(pairs));
  std::vector<float> inverse_frequency(size_t(pairs), 0.0f);
  for (int i = 0; i < pairs; ++i) {
    const float frequency = float(std::pow(double(theta), double(float(2 * i) / float(dim))));
    inverse_frequency[size_t(i)] = 1.0f / frequency / (divisors.empty() ? 1.0f : divisors[size_t(i)]);
  }
  for (int position = 0; position < positions; ++position) {
    float* __restrict cosine = values_.data() + size_t(position) * size_t(dim);
    float* __restrict sine = cosine + pairs;
    for (int i = 0; i < pairs; ++i)
      SinCos(double(float(position) * inverse_frequency[size_t(i)]), sine + i, cosine + i);
  }
}

}  // namespace dspark

#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/float16.h"
#include "kernels/rope.h"
#include "kernels/row_table.h"

namespace dspark {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

std::vector<float> RandomFloats(size_t n, uint32_t seed, float spread = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(n);
  for (float& v : x) v = normal(generator);
  return x;
}

// Bits, so that NaN equals itself and -0 differs from 0.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr int kLengths[] = {1, 2, 3, 15, 16, 17, 31, 48, 63, 64, 65, 100, 576, 1537};

class OpsTest : public testing::TestWithParam<Isa> {
 protected:
  // What the reference gives for the same call must be the same bits.
  template <class F>
  std::vector<float> Checked(F op) {
    std::vector<float> expected = op(Isa::kReference), got = op(GetParam());
    EXPECT_TRUE(SameBits(expected, got));
    return got;
  }
};

INSTANTIATE_TEST_SUITE_P(Isas, OpsTest, testing::ValuesIn(SupportedIsas()),
                         [](const auto& isa) { return std::string(IsaName(isa.param)); });

TEST_P(OpsTest, ExpIsWithinOneInTenMillion) {
  std::vector<float> x;
  for (float v = -90; v < 90; v += 0.00173f) x.push_back(v);
  const auto y = Checked([&](Isa isa) {
    std::vector<float> out(x.size());
    Exp(isa, x.data(), int(x.size()), out.data());
    return out;
  });
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < -87.33f) {
      ASSERT_EQ(y[i], 0.0f) << x[i];
    } else if (x[i] >= 88.72f) {
      ASSERT_EQ(y[i], kInf) << x[i];
    } else {
      worst = std::max(worst, std::abs(double(y[i]) / std::exp(double(x[i])) - 1));
    }
  }
  EXPECT_LT(worst, 1e-7);
}

TEST_P(OpsTest, ExpOfSpecialValues) {
  const std::vector<float> x = {0, -0.0f, -kInf, kInf, kNan, -1e30f, 1e30f, -87.33f, 1e-40f, 88.71f};
  std::vector<float> y(x.size());
  Exp(GetParam(), x.data(), int(x.size()), y.data());
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_FALSE(std::signbit(y[2]));
  EXPECT_EQ(y[3], kInf);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], 0.0f);
  EXPECT_EQ(y[6], kInf);
  EXPECT_GE(y[7], std::numeric_limits<float>::min());
  EXPECT_EQ(y[8], 1.0f);
  EXPECT_GT(y[9], 3.35e38f);
  EXPECT_LT(y[9], kInf);
}

TEST_P(OpsTest, RmsNormAgreesWithDouble) {
  for (int n : kLengths) {
    for (float spread : {1e-4f, 1.0f, 300.0f}) {
      const auto x = RandomFloats(size_t(n), uint32_t(n), spread),
                 w = RandomFloats(size_t(n), uint32_t(n) + 1);
      const auto y = Checked([&](Isa isa) {
        std::vector<float> out = x;  // in place
        RmsNorm(isa, out.data(), w.data(), n, 1e-5f, out.data());
        return out;
      });
      double squares = 0;
      for (float v : x) squares += double(v) * v;
      const double factor = 1 / std::sqrt(squares / n + 1e-5);
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = x[i] * factor * w[i];
        ASSERT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-30) << n << " " << i;
      }
    }
  }
}

TEST_P(OpsTest, RopeRotatesPairs) {
  for (int head_dim : {2, 6, 16, 34, 64, 128}) {
    for (bool interleaved : {false, true}) {
      const int heads = 3, half = head_dim / 2, position = 1234;
      const RopeTable table(position + 1, head_dim, 10000);
      const float* cos_sin = table.Row(position);
      const auto x = RandomFloats(size_t(heads) * size_t(head_dim), uint32_t(head_dim));
      const auto y = Checked([&](Isa isa) {
        std::vector<float> out = x;
        Rope(isa, out.data(), heads, head_dim, cos_sin, interleaved);
        return out;
      });
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < half; ++i) {
          const size_t a = size_t(h * head_dim + (interleaved ? 2 * i : i));
          const size_t b = size_t(h * head_dim + (interleaved ? 2 * i + 1 : i + half));
          const double c = cos_sin[i], s = cos_sin[half + i];
          ASSERT_NEAR(y[a], x[a] * c - x[b] * s, 1e-6);
          ASSERT_NEAR(y[b], x[b] * c + x[a] * s, 1e-6);
        }
      }
    }
  }
}

TEST_P(OpsTest, SwiGluAgreesWithDouble) {
  for (int n : kLengths) {
    auto gate = RandomFloats(size_t(n), uint32_t(n), 6);
    const auto up = RandomFloats(size_t(n), uint32_t(n) + 9);
    gate[0] = n % 2 ? -200.0f : 200.0f;
    const auto y = Checked([&](Isa isa) {
      std::vector<float> out = gate;
      SwiGlu(isa, out.data(), up.data(), n);
      return out;
    });
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = gate[i], expected = g / (1 + std::exp(-g)) * up[i];
      ASSERT_NEAR(y[i], expected, 5e-7 * std::abs(expected) + 1e-30) << gate[i];
    }
  }
}

int PlainArgMax(const std::vector<float>& x) {
  int best = -1;
  for (int i = 0; i < int(x.size()); ++i) {
    if (!std::isnan(x[size_t(i)]) && (best < 0 || x[size_t(i)] > x[size_t(best)])) best = i;
  }
  return std::max(best, 0);
}

// Random values with many ties, infinities and NaNs.
std::vector<float> Awkward(size_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> x(n);
  const float special[] = {kNan, -kInf, kInf, 0.0f, -0.0f, 1e38f, -1e38f, 1e-42f};
  const uint32_t specials = generator() % 3 == 0 ? 8 : generator() % 3;
  for (float& v : x) {
    v = generator() % 4 < 2 && specials ? special[generator() % specials]
                                        : float(int(generator() % 64)) - 32.0f;
  }
  return x;
}

TEST_P(OpsTest, ArgMaxTakesTheFirstOfTheLargestAndNeverNan) {
  for (uint32_t trial = 0; trial < 2000; ++trial) {
    const auto x = Awkward(1 + trial * 7 % 300, trial);
    ASSERT_EQ(ArgMax(GetParam(), x), PlainArgMax(x)) << trial;
  }
  EXPECT_EQ(ArgMax(GetParam(), std::vector<float>(33, kNan)), 0);
  EXPECT_EQ(ArgMax(GetParam(), std::vector<float>{kNan, -kInf, kNan}), 1);
  EXPECT_EQ(ArgMax(GetParam(), std::vector<float>{-0.0f, 0.0f}), 0);
}

void ExpectTopK(Isa isa, const std::vector<float>& x, int k) {
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const float u = x[size_t(a)], v = x[size_t(b)];
    return std::isnan(v) ? !std::isnan(u) : u > v;
  });
  std::vector<int32_t> ids(size_t(k), -1);
  std::vector<float> values(size_t(k), 0);
  TopK(isa, x, k, ids.data(), values.data());
  for (size_t i = 0; i < size_t(k); ++i) {
    ASSERT_EQ(ids[i], order[i]) << "n " << x.size() << " k " << k << " i " << i;
    ASSERT_EQ(std::memcmp(&values[i], &x[size_t(ids[i])], sizeof(float)), 0);
  }
}

TEST_P(OpsTest, TopKEqualsSorting) {
  std::mt19937 generator(5);
  for (uint32_t trial = 0; trial < 600; ++trial) {
    const auto x = Awkward(1 + generator() % 900, trial);
    ExpectTopK(GetParam(), x, 1 + int(generator() % x.size()));
    ExpectTopK(GetParam(), x, 1);
  }
  auto x = RandomFloats(49152 + 13, 3);
  for (int k : {1, 2, 40, 64, 1000, 1025, 5000, int(x.size())}) ExpectTopK(GetParam(), x, k);
  std::sort(x.begin(), x.end());  // every value beats all before it
  ExpectTopK(GetParam(), x, 64);
  ExpectTopK(GetParam(), std::vector<float>(5000, 1.0f), 64);
  ExpectTopK(GetParam(), std::vector<float>(5000, -kInf), 64);
}

TEST_P(OpsTest, LogSumExpAgreesWithDouble) {
  for (int n : kLengths) {
    for (float spread : {0.01f, 3.0f, 40.0f, 1e30f}) {
      const auto x = RandomFloats(size_t(n), uint32_t(n), spread);
      const double max = *std::max_element(x.begin(), x.end());
      double sum = 0;
      for (float v : x) sum += std::exp(v - max);
      const double expected = max + std::log(sum);
      const auto y = Checked([&](Isa isa) { return std::vector<float>{LogSumExp(isa, x)}; });
      ASSERT_NEAR(y[0], expected, 3e-7 * std::max(1.0, std::abs(expected)));
    }
  }
  const Isa isa = GetParam();
  EXPECT_EQ(LogSumExp(isa, std::vector<float>(20, -kInf)), -kInf);
  EXPECT_EQ(LogSumExp(isa, std::vector<float>{}), -kInf);
  EXPECT_EQ(LogSumExp(isa, std::vector<float>{-kInf, 2, -kInf}), 2.0f);
  EXPECT_EQ(LogSumExp(isa, std::vector<float>{1, kInf}), kInf);
  EXPECT_TRUE(std::isnan(LogSumExp(isa, std::vector<float>{1, kNan})));
}

TEST_P(OpsTest, SoftmaxAgreesWithDouble) {
  for (int n : kLengths) {
    for (float spread : {1.0f, 20.0f, 1e20f}) {
      for (float inverse_temperature : {1.0f, 1.4f, 0.1f}) {
        auto x = RandomFloats(size_t(n), uint32_t(n), spread);
        if (n > 2) x[size_t(n) / 2] = -kInf;
        const auto p = Checked([&](Isa isa) {
          std::vector<float> out = x;  // in place
          Softmax(isa, out, inverse_temperature, out.data());
          return out;
        });
        double max = -kInf, sum = 0;
        for (float v : x) max = std::max(max, double(v * inverse_temperature));
        for (float v : x) sum += std::exp(double(v * inverse_temperature) - max);
        for (size_t i = 0; i < x.size(); ++i) {
          const double expected = std::exp(double(x[i] * inverse_temperature) - max) / sum;
          ASSERT_NEAR(p[i], expected, 6e-6 * expected + 1e-37) << n << " " << spread;
        }
        if (n > 2) {
          ASSERT_EQ(p[size_t(n) / 2], 0.0f);
        }
      }
    }
  }
  std::vector<float> p(3);
  Softmax(GetParam(), std::vector<float>{1, kNan, 2}, 1, p.data());
  for (float v : p) EXPECT_TRUE(std::isnan(v));
}

TEST_P(OpsTest, RowsNeitherReadNorWriteBeyondTheirEnd) {
  for (int n = 1; n < 70; ++n) {
    std::vector<float> a = RandomFloats(size_t(n), 1), b = a;
    a.resize(size_t(n) + 64, kNan);
    b.resize(size_t(n) + 64, 1e30f);
    const std::vector<float> w = RandomFloats(size_t(n) + 64, 2);
    for (auto* x : {&a, &b}) {
      const auto beyond = std::vector<float>(x->begin() + n, x->end());
      RmsNorm(GetParam(), x->data(), w.data(), n, 1e-5f, x->data());
      SwiGlu(GetParam(), x->data(), w.data(), n);
      Softmax(GetParam(), {x->data(), size_t(n)}, 0.7f, x->data());
      Exp(GetParam(), x->data(), n, x->data());
      ASSERT_TRUE(SameBits(beyond, std::vector<float>(x->begin() + n, x->end())));
    }
    ASSERT_EQ(std::memcmp(a.data(), b.data(), size_t(n) * sizeof(float)), 0);
  }
}

TEST(RopeTable, AgreesWithLibm) {
  for (float theta : {10000.0f, 100000.0f, 1e6f}) {
    const int dim = 64;
    const RopeTable table(8192, dim, theta);
    int different = 0;
    for (int position = 0; position < table.positions(); ++position) {
      for (int i = 0; i < dim / 2; ++i) {
        const float inverse = 1.0f / float(std::pow(double(theta), double(2 * i) / dim));
        const double angle = double(float(position) * inverse);
        ASSERT_NEAR(table.Row(position)[i], std::cos(angle), 4e-8);
        ASSERT_NEAR(table.Row(position)[dim / 2 + i], std::sin(angle), 4e-8);
        different += table.Row(position)[i] != float(std::cos(angle));
      }
    }
    EXPECT_LT(different, 100);  // ties that fall the other way
  }
}

TEST(RopeTable, DivisorsSlowPairsDown) {
  const std::vector<float> divisors = {1, 2, 8, 1e30f};
  const RopeTable scaled(300, 8, 10000, divisors), plain(300, 8, 10000);
  EXPECT_EQ(scaled.Row(298)[0], plain.Row(298)[0]);
  EXPECT_EQ(scaled.Row(298)[1], plain.Row(149)[1]);
  EXPECT_EQ(scaled.Row(296)[4 + 2], plain.Row(37)[4 + 2]);
  EXPECT_EQ(scaled.Row(299)[3], 1.0f);
}

TEST_P(OpsTest, DotIsWithinRounding) {
  for (int n : kLengths) {
    const auto x = RandomFloats(size_t(n), 7), y = RandomFloats(size_t(n), 8);
    RowTable full(3, n, true), half(3, n, false);
    full.SetRow(1, x.data());
    half.SetRow(1, x.data());
    std::vector<float> halves(x.size());
    half.GetRow(1, halves.data());
    const auto dots = Checked([&](Isa isa) {
      return std::vector<float>{Dot(isa, x.data(), y.data(), n), full.Dot(isa, 1, y.data()),
                                half.Dot(isa, 1, y.data())};
    });
    double exact = 0, exact_half = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      exact += double(x[i]) * double(y[i]);
      exact_half += double(halves[i]) * double(y[i]);
      EXPECT_EQ(halves[i], HalfToFloat(FloatToHalf(x[i])));
    }
    EXPECT_NEAR(dots[0], exact, 1e-6 * n);
    EXPECT_EQ(dots[0], dots[1]);
    EXPECT_NEAR(dots[2], exact_half, 1e-6 * n);
    EXPECT_EQ(full.Dot(GetParam(), 0, y.data()), 0);  // the neighbouring rows stay empty
    EXPECT_EQ(half.Dot(GetParam(), 2, y.data()), 0);
  }
}

TEST_P(OpsTest, SumAtLeastFindsAllInOrder) {
  for (size_t n : {1u, 15u, 16u, 17u, 64u, 100u, 1537u}) {
    const auto x = RandomFloats(n, 3), w = RandomFloats(n, 4);
    for (float limit : {-100.0f, 0.0f, 1.5f, x[n / 2] + w[n / 2] * 0.5f, 100.0f}) {
      std::vector<int32_t> expected, found;
      for (size_t i = 0; i < n; ++i) {
        if (std::fma(w[i], 0.5f, x[i]) >= limit) expected.push_back(int32_t(i));
      }
      int32_t ids[5];
      int count = 0;
      for (size_t i = 0; i < n;) {
        const size_t next = SumAtLeast(GetParam(), x, w.data(), 0.5f, limit, i, ids, &count);
        ASSERT_TRUE(next > i || count > 0);
        i = next;
        found.insert(found.end(), ids, ids + count);
      }
      EXPECT_EQ(found, expected) << n << " values, limit " << limit;
    }
  }
}

}  // namespace
}  // namespace dspark

#include "draft/markov_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/ops.h"

namespace dspark {
namespace {

struct Head {
  Head(int vocab, int rank, float scale, bool fp32, uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    weights.kind = MarkovHead::kVanilla;
    weights.w1 = RowTable(1, rank, true);
    weights.w2 = RowTable(vocab, rank, fp32);
    std::vector<float> row(static_cast<size_t>(rank));
    for (int v = 0; v < vocab; ++v) {
      const float length = scale * std::exp(normal(generator));  // some rows much longer than others
      for (float& x : row) x = length * normal(generator);
      weights.w2.SetRow(v, row.data());
    }
    g.resize(size_t(rank));
    for (float& x : g) x = normal(generator);
    u.resize(size_t(vocab));
    for (float& x : u) x = 3 * normal(generator);
    ThreadPool pool(1);
    MeasureNorms(pool, &weights);
  }
  int32_t FullArgMax(Isa isa) const {
    std::vector<float> corrected = u;
    for (size_t v = 0; v < u.size(); ++v) corrected[v] += weights.w2.Dot(isa, int32_t(v), g.data());
    return ArgMax(isa, corrected);
  }
  int32_t Ours(Isa isa, int candidates) const {
    std::vector<int32_t> top(static_cast<size_t>(candidates));
    std::vector<float> values(top.size());
    TopK(isa, u, candidates, top.data(), values.data());
    return CorrectedArgMax(isa, weights, u, top, g.data());
  }

  MarkovWeights weights;
  std::vector<float> u, g;
};

class MarkovHeadTest : public testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isas, MarkovHeadTest, testing::Values(Isa::kReference, DetectIsa()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

// From biases that change nothing to biases that decide alone.
TEST_P(MarkovHeadTest, ArgMaxIsThatOfTheFullBias) {
  int certified = 0, beyond = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    for (float scale : {0.0f, 1e-3f, 0.03f, 0.2f, 1.0f, 10.0f}) {
      const int vocab = seed % 3 == 0 ? 17 : seed % 3 == 1 ? 300 : 3001;
      const Head head(vocab, seed % 2 ? 16 : 20, scale, seed % 4 < 2, seed);
      const int32_t expected = head.FullArgMax(GetParam());
      ASSERT_EQ(head.Ours(GetParam(), 16), expected) << "seed " << seed << ", scale " << scale;
      ASSERT_EQ(head.Ours(GetParam(), 1), expected) << "seed " << seed << ", scale " << scale;
      const bool in_top = head.u[size_t(expected)] >= *std::max_element(head.u.begin(), head.u.end()) - 1;
      ++(in_top ? certified : beyond);
    }
  }
  EXPECT_GT(certified, 50);  // both ways are taken
  EXPECT_GT(beyond, 50);
}

TEST_P(MarkovHeadTest, TiesGoToTheLowestId) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    Head head(500, 16, seed % 2 ? 1.0f : 0.0f, true, seed);
    for (float& x : head.u) x = std::round(x / 3);
    for (float& x : head.g) x = std::round(x);
    std::vector<float> row(16);
    for (int v = 0; v < 500; ++v) {  // rows of small integers: exact sums, many of them equal
      head.weights.w2.GetRow(v, row.data());
      for (float& x : row) x = std::clamp(std::round(x), -1.0f, 1.0f);
      head.weights.w2.SetRow(v, row.data());
    }
    ThreadPool pool(1);
    MeasureNorms(pool, &head.weights);
    EXPECT_EQ(head.Ours(GetParam(), 4), head.FullArgMax(GetParam())) << seed;
  }
}

TEST_P(MarkovHeadTest, LogitsThatAreNoNumbersGiveSomeToken) {
  Head head(100, 16, 1, true, 1);
  for (float x : {float(NAN), INFINITY, -INFINITY}) {
    std::fill(head.u.begin(), head.u.end(), x);
    const int32_t token = head.Ours(GetParam(), 8);
    EXPECT_TRUE(token >= 0 && token < 100);
  }
}

}  // namespace
}  // namespace dspark

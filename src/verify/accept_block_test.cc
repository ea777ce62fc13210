#include <gtest/gtest.h>

#include <algorithm>

#include "accept_tree.h"

namespace dspark {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace)

// --- The rule restated from the paper (arXiv:2403.10444, Algorithm 2), over a whole block at once ---

struct Block {
  std::vector<size_t> nodes;   // of x_1 … x_k, k = 0 … n
  std::vector<double> weight;  // p_k
  std::vector<double> keep;    // h_k
};

double Residual(const Tree& p, const Tree& q, size_t node, int32_t token, double weight) {
  return std::max(0.0,
                  weight * double(p.at(node).ProbabilityOf(token)) - double(q.at(node).ProbabilityOf(token)));
}

double ResidualMass(const Tree& p, const Tree& q, size_t node, double weight) {
  double mass = 0;
  for (int32_t t = 0; t < p.vocab; ++t) mass += Residual(p, q, node, t, weight);
  return mass;
}

Block Judge(const Tree& p, const Tree& q, const std::vector<int32_t>& drafts) {
  Block block{{1}, {1}, {1}};
  for (const int32_t x : drafts) {
    const size_t node = block.nodes.back();
    const double ratio = double(p.at(node).ProbabilityOf(x)) / double(q.at(node).ProbabilityOf(x));
    block.weight.push_back(std::min(1.0, block.weight.back() * ratio));
    block.nodes.push_back(Tree::Child(node, p.vocab, x));
  }
  const size_t n = drafts.size();
  for (size_t k = 1; k <= n; ++k) {
    const double mass = ResidualMass(p, q, block.nodes[k], block.weight[k]);
    const double other = mass + 1 - block.weight[k];
    block.keep.push_back(k == n ? block.weight[k] : other > 0 ? mass / other : 1);
  }
  return block;
}

// Whether one more draft follows this prefix: a planner that looks at nothing but the drafts before.
using Stop = std::function<bool(size_t node, int depth)>;

struct Enumeration : PlainEnumeration {
  const Tree& q;
  int block;
  Stop stop;
  double expected_kept = 0;

  void Draft(std::vector<int32_t> drafts, size_t node, double mass) {
    const int depth = int(drafts.size());
    if (depth == block || stop(node, depth)) return Decide(drafts, mass);
    const Distribution& row = q.at(node);
    for (size_t i = 0; i < row.ids.size(); ++i) {
      drafts.push_back(row.ids[i]);
      Draft(drafts, Tree::Child(node, p.vocab, row.ids[i]), mass * double(row.probs[i]));
      drafts.pop_back();
    }
  }

  void Decide(const std::vector<int32_t>& drafts, double mass) {
    const Block judged = Judge(p, q, drafts);
    for (int k = int(drafts.size()); k >= 0 && mass > 0; --k) {
      const double here = mass * judged.keep[size_t(k)];
      mass -= here;
      expected_kept += here * k;
      const size_t node = judged.nodes[size_t(k)];
      if (k == int(drafts.size())) {
        Continue(node, k, here);
        continue;
      }
      const double weight = judged.weight[size_t(k)], total = ResidualMass(p, q, node, weight);
      for (int32_t t = 0; t < p.vocab && here > 0 && total > 0; ++t) {
        Continue(Tree::Child(node, p.vocab, t), k + 1, here * Residual(p, q, node, t, weight) / total);
      }
    }
  }
};

Enumeration Enumerate(const Tree& p, const Tree& q, int block, Stop stop) {
  Enumeration implied{
      {p, block + 1, std::vector<double>(TreeSize(p.vocab, block + 1))}, q, block, std::move(stop)};
  implied.Draft({}, 1, 1);
  return implied;
}

bool Never(size_t, int) { return false; }

TEST(BlockVerification, ImpliedLawIsTheTargets) {
  const Stop by_prefix = [](size_t node, int depth) { return depth > 0 && node * 2654435761u % 5 < 2; };
  for (int vocab : {3, 4}) {
    for (int block : {1, 2, 3}) {
      for (int top_k : {0, 2}) {
        for (const Stop& stop : {Stop(Never), by_prefix}) {
          const Tree p = RandomTree(vocab, block + 1, 1, {.top_k = top_k});
          const Tree q = RandomTree(vocab, block + 1, 2, {.temperature = 0.7f, .top_k = top_k ? 0 : 2});
          const Enumeration implied = Enumerate(p, q, block, stop);
          const std::vector<double> plain = PlainLaw(p, block + 1);
          for (size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(implied.law[i], plain[i], 1e-6);
        }
      }
    }
  }
}

// Stopping where a draft is known is what the argument forbids (drafters.md §10, Appendix A).
TEST(BlockVerification, LookingAtADraftBeforeDecidingToVerifyItIsFound) {
  const Tree p = RandomTree(3, 3, 1), q = RandomTree(3, 3, 2);
  Enumeration implied = Enumerate(p, q, 2, Never);
  std::fill(implied.law.begin(), implied.law.end(), 0);
  for (int32_t x = 0; x < 3; ++x) {
    for (int32_t y = 0; y < 3; ++y) {
      const double mass =
          double(q.at(1).ProbabilityOf(x)) * double(q.at(Tree::Child(1, 3, x)).ProbabilityOf(y));
      y == 0 ? implied.Decide({x}, mass) : implied.Decide({x, y}, mass);
    }
  }
  const std::vector<double> plain = PlainLaw(p, 3);
  double worst = 0;
  for (size_t i = 0; i < plain.size(); ++i) worst = std::max(worst, std::abs(implied.law[i] - plain[i]));
  EXPECT_GT(worst, 0.01);
}

// The paper's own example (§2): token-wise 10/9 drafts kept of two, block-wise 11/9.
TEST(BlockVerification, KeepsMoreThanTokenWiseRejection) {
  const Distribution target{{0, 1}, {1.0f / 3, 2.0f / 3}}, draft{{0, 1}, {2.0f / 3, 1.0f / 3}};
  const Tree p = MakeTree(2, 3, [&](size_t) { return target; });
  const Tree q = MakeTree(2, 3, [&](size_t) { return draft; });
  EXPECT_NEAR(Enumerate(p, q, 2, Never).expected_kept, 11.0 / 9, 1e-6);

  int64_t by_block = 0, by_token = 0;
  constexpr int kDraws = 200000;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    std::vector<int32_t> drafts;
    for (uint64_t k = 0; k < 2; ++k) drafts.push_back(draft.Sample(UniformDouble(seed, k, Purpose::kDraft)));
    const std::vector<DraftDistribution> rows(2, {draft.ids, draft.probs});
    const AcceptInput input{.drafts = drafts, .q = rows, .seed = seed, .position = 0};
    const auto row = [&](int) -> const Distribution& { return target; };
    by_block += AcceptByBlock(input, row).accepted;
    by_token += AcceptByRejection(input, row).accepted;
  }
  EXPECT_NEAR(double(by_block) / kDraws, 11.0 / 9, 0.01);
  EXPECT_NEAR(double(by_token) / kDraws, 10.0 / 9, 0.01);
}

// --- Drawn ---

AcceptResult ByBlock(const Case&, const AcceptInput& input, TargetRow p) { return AcceptByBlock(input, p); }

TEST(BlockVerification, DrawnRepliesHaveTheTargetsLaw) {
  uint64_t seed = 301;
  for (const Case& c : Cases()) EXPECT_GT(PValue(c, seed++, ByBlock), kSignificance) << c.name;
}

enum class Mistake {
  kNone,
  kKeepWeight,      // every prefix kept with p_k, as if it were the last
  kPlainResidual,   // the residual of p instead of p_k · p
  kUncappedWeight,  // p_k without min(1, …)
};

Rule WrongRule(Mistake mistake) {
  return [mistake](const Case& c, const AcceptInput& input, TargetRow) -> AcceptResult {
    const std::vector<int32_t> drafts(input.drafts.begin(), input.drafts.end());
    const Block block = Judge(c.p, c.q, drafts);
    double uncapped = 1;
    AcceptResult result;
    for (int k = 0; k <= int(drafts.size()); ++k) {
      const size_t node = block.nodes[size_t(k)];
      const Distribution &row = c.p.at(node), &q = c.q.at(node);
      double keep = block.keep[size_t(k)];
      if (mistake == Mistake::kKeepWeight) keep = block.weight[size_t(k)];
      if (mistake == Mistake::kUncappedWeight && k == int(drafts.size())) keep = std::min(1.0, uncapped);
      if (k > 0 && UniformDouble(input.seed, uint64_t(k - 1), Purpose::kAccept, uint32_t(k)) >= keep)
        continue;
      const double u = UniformDouble(input.seed, uint64_t(k), Purpose::kResidual);
      const double weight = mistake == Mistake::kPlainResidual ? 1 : block.weight[size_t(k)];
      result = {k, k,
                k < int(drafts.size()) ? SampleResidual(row, {q.ids, q.probs}, 0, u, weight) : row.Sample(u)};
      if (k < int(drafts.size()))
        uncapped *= double(row.ProbabilityOf(drafts[size_t(k)])) / double(q.ProbabilityOf(drafts[size_t(k)]));
    }
    return result;
  };
}

TEST(BlockVerification, TheTestFindsWrongRules) {
  const std::vector<Case> cases = Cases();
  EXPECT_GT(PValue(cases[0], 401, WrongRule(Mistake::kNone)), kSignificance);
  EXPECT_LT(PValue(cases[0], 402, WrongRule(Mistake::kKeepWeight)), kSignificance);
  EXPECT_LT(PValue(cases[0], 403, WrongRule(Mistake::kPlainResidual)), kSignificance);
  EXPECT_LT(PValue(cases[0], 404, WrongRule(Mistake::kUncappedWeight)), kSignificance);
}

// --- Many rounds: what was drawn behind a kept prefix must not come back ---

using DraftIndex = uint32_t (*)(int k);

// χ² of eight binary tokens made in rounds of `block` drafts. Target and draft differ from position to
// position, so that a test's number that decides twice is found too.
double PValueOfRounds(int block, const Rule& rule, DraftIndex index) {
  constexpr int kLength = 8, kReplies = 200000;
  const Distribution targets[] = {{{0, 1}, {0.3f, 0.7f}}, {{0, 1}, {0.9f, 0.1f}}, {{0, 1}, {0.5f, 0.5f}}};
  const Distribution draws[] = {{{0, 1}, {0.6f, 0.4f}}, {{0, 1}, {0.4f, 0.6f}}, {{0, 1}, {0.1f, 0.9f}}};
  const Case unused;
  std::vector<int64_t> counts(1 << kLength);
  for (uint64_t seed = 0; seed < kReplies; ++seed) {
    std::vector<int32_t> reply;
    while (int(reply.size()) < kLength) {
      const uint64_t position = reply.size();
      const auto row = [&](int k) -> const Distribution& { return targets[(position + uint64_t(k)) % 3]; };
      std::vector<int32_t> drafts;
      std::vector<DraftDistribution> q;
      for (int k = 0; k < block; ++k) {
        const Distribution& draw = draws[(position + uint64_t(k)) % 3];
        drafts.push_back(draw.Sample(UniformDouble(seed, position + uint64_t(k), Purpose::kDraft, index(k))));
        q.push_back({draw.ids, draw.probs});
      }
      const AcceptResult result =
          rule(unused, {.drafts = drafts, .q = q, .seed = seed, .position = position}, row);
      reply.insert(reply.end(), drafts.begin(), drafts.begin() + result.accepted);
      reply.push_back(result.next);
    }
    size_t code = 0;
    for (int i = 0; i < kLength; ++i) code = 2 * code + size_t(reply[size_t(i)]);
    ++counts[code];
  }
  std::vector<double> law(1 << kLength, 1);
  for (size_t code = 0; code < law.size(); ++code) {
    for (int i = 0; i < kLength; ++i)
      law[code] *= double(targets[i % 3].probs[code >> (kLength - 1 - i) & 1]);
  }
  return ChiSquarePValue(counts, law);
}

TEST(BlockVerification, RepliesOfManyRoundsHaveTheTargetsLaw) {
  const DraftIndex place = [](int k) { return uint32_t(k); }, none = [](int) { return uint32_t(0); };
  const Rule by_token = [](const Case&, const AcceptInput& input, TargetRow p) {
    return AcceptByRejection(input, p);
  };
  for (const int block : {1, 2, 4}) {
    EXPECT_GT(PValueOfRounds(block, ByBlock, place), kSignificance) << block;
    EXPECT_GT(PValueOfRounds(block, by_token, place), kSignificance) << block;
  }
  // Drafts that come back at their positions are found.
  EXPECT_LT(PValueOfRounds(4, ByBlock, none), kSignificance);
}

TEST(BlockVerification, GreedyKeepsExactlyTheMatchingPrefix) {
  const Tree p = RandomTree(3, kBlock + 1, 30, {.temperature = 0}), q = RandomTree(3, kBlock + 1, 31);
  for (int code = 0; code < 27; ++code) {
    const std::vector<int32_t> drafts = {code / 9, code / 3 % 3, code % 3};
    std::vector<size_t> nodes = {1};
    std::vector<DraftDistribution> rows;
    for (int32_t x : drafts) {
      rows.push_back({q.at(nodes.back()).ids, q.at(nodes.back()).probs});
      nodes.push_back(Tree::Child(nodes.back(), 3, x));
    }
    size_t matching = 0;
    while (matching < drafts.size() && p.at(nodes[matching]).ids[0] == drafts[matching]) ++matching;
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const AcceptResult result =
          AcceptByBlock({.drafts = drafts, .q = rows, .seed = seed, .position = 5},
                        [&](int k) -> const Distribution& { return p.at(nodes[size_t(k)]); });
      EXPECT_EQ(size_t(result.accepted), matching);
      EXPECT_EQ(result.next, p.at(nodes[matching]).ids[0]);
    }
  }
}

}  // namespace
}  // namespace dspark

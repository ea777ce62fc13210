#include "verify/accept.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "accept_tree.h"
#include "core/rng.h"

namespace dspark {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace)

// --- The rule's arithmetic, restated, and the implementation's decisions against it ---

double AcceptProbability(double p, double q) { return std::min(1.0, p / q); }

std::vector<double> ResidualProbabilities(int vocab, const Distribution& p, const Distribution& q) {
  std::vector<double> residual;
  double sum = 0;
  for (int32_t t = 0; t < vocab; ++t) {
    residual.push_back(std::max(0.0, double(p.ProbabilityOf(t)) - double(q.ProbabilityOf(t))));
    sum += residual.back();
  }
  for (double& r : residual) r /= sum;
  return residual;
}

constexpr int kSweep = 1 << 16;

TEST(KeepsDraft, AcceptsTheFractionPOverQ) {
  for (float p : {0.0f, 1e-4f, 0.1f, 0.25f, 0.7f, 1.0f}) {
    for (float q : {1e-4f, 0.1f, 0.25f, 0.7f, 1.0f}) {
      int accepted = 0;
      for (int i = 0; i < kSweep; ++i) accepted += KeepsDraft((i + 0.5) / kSweep, p, q);
      EXPECT_NEAR(double(accepted) / kSweep, AcceptProbability(p, q), 1.0 / kSweep) << p << " " << q;
    }
  }
}

TEST(KeepsDraft, IsCertainAtTheEnds) {
  const double almost_one = 1 - 0x1p-53;
  EXPECT_FALSE(KeepsDraft(0, 0, 1));  // impossible under p: never, even for u = 0
  EXPECT_FALSE(KeepsDraft(0, 0, 1e-38f));
  EXPECT_TRUE(KeepsDraft(almost_one, 0.3f, 0.3f));
  EXPECT_TRUE(KeepsDraft(almost_one, 1, 1));
  EXPECT_TRUE(KeepsDraft(almost_one, 1, 1e-38f));  // p / q would overflow
  EXPECT_TRUE(KeepsDraft(0, 1e-45f, 1));
}

TEST(SampleResidual, DrawsEachTokenWithItsResidualMass) {
  for (int vocab : {3, 4, 5}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const Distribution p = RandomServed(vocab, seed, 1, {.top_k = seed % 2 ? 3 : 0});
      const Distribution q = RandomServed(vocab, seed, 2, {.top_k = seed % 3 ? 2 : 0});
      const std::vector<double> expected = ResidualProbabilities(vocab, p, q);
      std::vector<int> counts(static_cast<size_t>(vocab));
      for (int i = 0; i < kSweep; ++i)
        ++counts[size_t(SampleResidual(p, {q.ids, q.probs}, 0, (i + 0.5) / kSweep))];
      for (size_t t = 0; t < counts.size(); ++t)
        EXPECT_NEAR(double(counts[t]) / kSweep, expected[t], 2.0 / kSweep);
    }
  }
}

TEST(SampleResidual, OneHotTakesTheDraftOut) {
  const Distribution p = Normalised({1, 4, 9}, {2, 1, 1});
  EXPECT_EQ(SampleResidual(p, {}, 1, 0.0), 4);
  EXPECT_EQ(SampleResidual(p, {}, 1, 0.49), 4);
  EXPECT_EQ(SampleResidual(p, {}, 1, 0.51), 9);
  EXPECT_EQ(SampleResidual(p, {}, 9, 1 - 0x1p-53), 4);
  EXPECT_EQ(SampleResidual(p, {}, 5, 0.1), 1);  // a draft outside p's support takes nothing
}

TEST(SampleResidual, FallsBackToPWhereNothingIsLeft) {
  const Distribution p = Normalised({2, 3}, {1, 1});
  EXPECT_EQ(SampleResidual(p, {p.ids, p.probs}, 2, 0.2), 2);
  EXPECT_EQ(SampleResidual(p, {p.ids, p.probs}, 2, 0.7), 3);
  const Distribution one = Normalised({7}, {1});
  EXPECT_EQ(SampleResidual(one, {}, 7, 0.5), 7);
}

// --- (a) Exact enumeration: the law of the reply that the rule implies, summed over drafts and outcomes ---

struct Enumeration : PlainEnumeration {
  const Tree& q;

  void Block(size_t node, int depth, double mass) {
    if (depth + 1 == tokens) return Continue(node, depth, mass);  // all accepted: the bonus token
    const Distribution &row = p.at(node), &draft = q.at(node);
    const auto residual = ResidualProbabilities(p.vocab, row, draft);
    for (size_t i = 0; i < draft.ids.size(); ++i) {
      const int32_t x = draft.ids[i];
      const double drawn = mass * double(draft.probs[i]);
      const double keep = drawn > 0 ? AcceptProbability(row.ProbabilityOf(x), draft.probs[i]) : 0;
      Block(Tree::Child(node, p.vocab, x), depth + 1, drawn * keep);
      if (keep == 1) continue;
      for (int32_t t = 0; t < p.vocab; ++t) {
        Continue(Tree::Child(node, p.vocab, t), depth + 1, drawn * (1 - keep) * residual[size_t(t)]);
      }
    }
  }
};

TEST(Rejection, ImpliedLawIsTheTargets) {
  for (int vocab : {3, 4, 5}) {
    for (int block : {1, 2, 3, 4}) {
      if (vocab == 5 && block == 4) continue;  // no more to learn, and slow
      for (int top_k : {0, 2}) {
        const Tree p = RandomTree(vocab, block + 1, 1, {.top_k = top_k});
        const Tree q = RandomTree(vocab, block + 1, 2, {.temperature = 0.7f, .top_k = top_k ? 0 : 2});
        Enumeration implied{{p, block + 1, std::vector<double>(TreeSize(vocab, block + 1))}, q};
        implied.Block(1, 0, 1);
        const std::vector<double> plain = PlainLaw(p, block + 1);
        for (size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(implied.law[i], plain[i], 1e-6);
      }
    }
  }
}

// --- (b) Drawn: the law of the first tokens over many blocks, and (c) wrong rules that the same test must
// find ---

AcceptResult Rejection(const Case&, const AcceptInput& input, TargetRow p) {
  return AcceptByRejection(input, p);
}
AcceptResult Match(const Case&, const AcceptInput& input, TargetRow p) { return AcceptByMatch(input, p); }

TEST(Rejection, DrawnRepliesHaveTheTargetsLaw) {
  uint64_t seed = 1;
  for (const Case& c : Cases()) EXPECT_GT(PValue(c, seed++, Rejection), kSignificance) << c.name;
}

TEST(Match, DrawnRepliesHaveTheTargetsLaw) {
  uint64_t seed = 101;
  for (const Case& c : Cases()) EXPECT_GT(PValue(c, seed++, Match), kSignificance) << c.name;
}

// Each is the rejection rule with one mistake.
enum class Mistake {
  kNone,
  kResidualFromP,      // the correction drawn from p itself
  kOtherQ,             // tested against a q that the draft was not drawn from
  kBonusFromWrongRow,  // the bonus from the row before the last draft
  kSharedU,            // one u for all accept tests of the block
  kResidualReusesU,    // the correction drawn with the u of the test that failed
};

Rule WrongRule(Mistake mistake) {
  return [mistake](const Case& c, const AcceptInput& input, TargetRow p) -> AcceptResult {
    const int n = int(input.drafts.size());
    for (int k = 0; k < n; ++k) {
      const uint64_t tested = mistake == Mistake::kSharedU ? 0 : uint64_t(k);
      const double u = UniformDouble(input.seed, tested, Purpose::kAccept);
      const int32_t x = input.drafts[size_t(k)];
      const Distribution drawn_from{{input.q[size_t(k)].ids.begin(), input.q[size_t(k)].ids.end()},
                                    {input.q[size_t(k)].probs.begin(), input.q[size_t(k)].probs.end()}};
      const Distribution& q = mistake == Mistake::kOtherQ ? c.q.at(1) : drawn_from;
      const Distribution& row = p(k);
      if (KeepsDraft(u, row.ProbabilityOf(x), q.ProbabilityOf(x))) continue;
      const double v = mistake == Mistake::kResidualReusesU
                           ? u
                           : UniformDouble(input.seed, uint64_t(k), Purpose::kResidual);
      return {
          k, k + 1,
          mistake == Mistake::kResidualFromP ? row.Sample(v) : SampleResidual(row, {q.ids, q.probs}, x, v)};
    }
    const int row = mistake == Mistake::kBonusFromWrongRow ? n - 1 : n;
    return {n, n, p(row).Sample(UniformDouble(input.seed, uint64_t(n), Purpose::kBonus))};
  };
}

TEST(Rejection, TheTestFindsWrongRules) {
  const std::vector<Case> cases = Cases();
  EXPECT_GT(PValue(cases[0], 201, WrongRule(Mistake::kNone)), kSignificance);
  EXPECT_LT(PValue(cases[0], 202, WrongRule(Mistake::kResidualFromP)), kSignificance);
  EXPECT_LT(PValue(cases[0], 203, WrongRule(Mistake::kOtherQ)), kSignificance);
  EXPECT_LT(PValue(cases[0], 204, WrongRule(Mistake::kBonusFromWrongRow)), kSignificance);
  EXPECT_LT(PValue(cases[0], 205, WrongRule(Mistake::kSharedU)), kSignificance);
  EXPECT_LT(PValue(cases[0], 206, WrongRule(Mistake::kResidualReusesU)), kSignificance);
}

// --- (d) Greedy, (e) match, and the bookkeeping ---

TEST(Rejection, GreedyKeepsExactlyTheMatchingPrefix) {
  constexpr int kVocab = 3;
  const Tree p = RandomTree(kVocab, kBlock + 1, 30, {.temperature = 0});
  const Tree q = RandomTree(kVocab, kBlock + 1, 31);
  for (bool with_q : {false, true}) {
    for (int code = 0; code < 27; ++code) {
      const std::vector<int32_t> drafts = {code / 9, code / 3 % 3, code % 3};
      std::vector<size_t> nodes = {1};
      std::vector<DraftDistribution> rows;
      for (int32_t x : drafts) {
        if (with_q) rows.push_back({q.at(nodes.back()).ids, q.at(nodes.back()).probs});
        nodes.push_back(Tree::Child(nodes.back(), kVocab, x));
      }
      int matching = 0;
      while (matching < kBlock && p.at(nodes[size_t(matching)]).ids[0] == drafts[size_t(matching)])
        ++matching;

      std::vector<int> asked;
      const auto row = [&](int k) -> const Distribution& {
        asked.push_back(k);
        return p.at(nodes[size_t(k)]);
      };
      for (uint64_t seed = 0; seed < 20; ++seed) {
        for (auto* rule : {&AcceptByRejection, &AcceptByMatch}) {
          asked.clear();
          const AcceptResult result = rule({.drafts = drafts, .q = rows, .seed = seed, .position = 5}, row);
          EXPECT_EQ(result.accepted, matching);
          EXPECT_EQ(result.examined, std::min(matching + 1, kBlock));
          EXPECT_EQ(result.next, p.at(nodes[size_t(matching)]).ids[0]);
          std::vector<int> wanted;
          for (int k = 0; k <= matching; ++k) wanted.push_back(k);
          EXPECT_EQ(asked, wanted) << "rows behind the first rejection are not asked for";
        }
      }
    }
  }
}

// A whole reply in rounds of drafts equals the plain one for every seed, whatever the drafts were.
TEST(Match, RepliesArePlainRepliesTokenForToken) {
  constexpr int kVocab = 3, kLength = 40;
  const Tree p = RandomTree(kVocab, 1, 40);
  const auto row_after = [&](int32_t last) -> const Distribution& { return p.at(size_t(kVocab + last)); };
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<int32_t> plain = {0}, speculative = {0};
    while (plain.size() < kLength) {
      plain.push_back(row_after(plain.back()).Sample(UniformDouble(seed, plain.size(), Purpose::kBonus)));
    }
    int accepted = 0;
    while (speculative.size() < kLength) {
      std::vector<int32_t> drafts;
      const size_t n = (speculative.size() + seed) % 5;
      for (size_t k = 0; k < n; ++k)
        drafts.push_back(int32_t(UniformDouble(seed, speculative.size() + k, Purpose::kTest) * 3));
      const auto row = [&](int k) -> const Distribution& {
        return row_after(k ? drafts[size_t(k - 1)] : speculative.back());
      };
      const AcceptResult result =
          AcceptByMatch({.drafts = drafts, .q = {}, .seed = seed, .position = speculative.size()}, row);
      speculative.insert(speculative.end(), drafts.begin(), drafts.begin() + result.accepted);
      speculative.push_back(result.next);
      accepted += result.accepted;
    }
    speculative.resize(kLength);
    EXPECT_EQ(speculative, plain);
    EXPECT_GT(accepted, 0);
  }
}

TEST(Accept, WithoutDraftsIsPlainSampling) {
  const Distribution p = Normalised({2, 5, 8}, {1, 2, 3});
  const auto row = [&](int) -> const Distribution& { return p; };
  for (uint64_t position = 0; position < 100; ++position) {
    const int32_t plain = p.Sample(UniformDouble(9, position, Purpose::kBonus));
    const AcceptInput input{.drafts = {}, .q = {}, .seed = 9, .position = position};
    EXPECT_EQ(AcceptByRejection(input, row).next, plain);
    EXPECT_EQ(AcceptByMatch(input, row).next, plain);
    EXPECT_EQ(AcceptByRejection(input, row).accepted, 0);
    EXPECT_EQ(AcceptByRejection(input, row).examined, 0);
  }
}

// For one-hot q both rules keep the draft with probability p(draft).
TEST(Accept, RulesAgreeInProbabilityForOneHotDrafts) {
  const Distribution p = Normalised({0, 1, 2}, {5, 3, 2});
  const auto row = [&](int) -> const Distribution& { return p; };
  constexpr int kDraws = 200000;
  for (int32_t draft : {0, 1, 2, 3}) {
    const std::vector<int32_t> drafts = {draft};
    int rejection = 0, match = 0;
    for (uint64_t seed = 0; seed < kDraws; ++seed) {
      const AcceptInput input{.drafts = drafts, .q = {}, .seed = seed, .position = 3};
      rejection += AcceptByRejection(input, row).accepted;
      match += AcceptByMatch(input, row).accepted;
    }
    const double expected = p.ProbabilityOf(draft);
    const double tolerance = 5 * std::sqrt(expected * (1 - expected) / kDraws);
    EXPECT_NEAR(double(rejection) / kDraws, expected, tolerance);
    EXPECT_NEAR(double(match) / kDraws, expected, tolerance);
  }
}

TEST(AcceptDeath, ADraftThatItsQCannotDrawIsABug) {
  const Distribution p = Normalised({0, 1}, {1, 1});
  const std::vector<int32_t> drafts = {2};
  const std::vector<DraftDistribution> q = {{p.ids, p.probs}};
  const auto row = [&](int) -> const Distribution& { return p; };
  EXPECT_DEATH(AcceptByRejection({.drafts = drafts, .q = q, .seed = 1, .position = 0}, row), "check failed");
}

}  // namespace
}  // namespace dspark

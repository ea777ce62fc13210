// Small vocabularies on which an accept rule's law can be enumerated, and drawn often enough to test it.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "chi_square.h"
#include "core/rng.h"
#include "verify/accept.h"

namespace dspark::test {

inline constexpr Isa kIsa = Isa::kReference;

// Distributions over a small vocabulary for every prefix: the row after x_1 … x_k is at the number those
// tokens spell in base V with a leading 1, so that "", "0" and "00" differ.
struct Tree {
  int vocab = 0;
  std::vector<Distribution> rows;

  static size_t Child(size_t node, int vocab, int32_t token) { return node * size_t(vocab) + size_t(token); }
  const Distribution& at(size_t node) const { return rows[node]; }
};

// Number of nodes of prefixes up to `depth` tokens.
inline size_t TreeSize(int vocab, int depth) {
  size_t size = 2;
  for (int i = 0; i < depth; ++i) size *= size_t(vocab);
  return size;
}

inline Tree MakeTree(int vocab, int depth, const std::function<Distribution(size_t node)>& make) {
  Tree tree{vocab, {}};
  for (size_t node = 0; node < TreeSize(vocab, depth); ++node) tree.rows.push_back(make(node));
  return tree;
}

inline Distribution Normalised(std::vector<int32_t> ids, std::vector<double> weights) {
  double sum = 0;
  for (double w : weights) sum += w;
  Distribution d{std::move(ids), {}};
  for (double w : weights) d.probs.push_back(float(w / sum));
  return d;
}

// What `params` serve from random logits.
inline Distribution RandomServed(int vocab, uint64_t seed, size_t node, const SamplingParams& params) {
  std::vector<float> logits;
  for (int i = 0; i < vocab; ++i) {
    logits.push_back(4 * UniformFloat(seed, node, Purpose::kTest, uint32_t(i)));
  }
  Distribution d;
  ServedDistribution(kIsa, logits, params, nullptr, &d);
  return d;
}

inline Tree RandomTree(int vocab, int depth, uint64_t seed, const SamplingParams& params = {}) {
  return MakeTree(vocab, depth, [&](size_t node) { return RandomServed(vocab, seed, node, params); });
}

// The law of a reply's first tokens, by node.
struct PlainEnumeration {
  const Tree& p;
  int tokens;
  std::vector<double> law;

  // Spreads `mass` over what plain decoding does from here on.
  void Continue(size_t node, int depth, double mass) {
    if (depth == tokens) {
      law[node] += mass;
      return;
    }
    const Distribution& row = p.at(node);
    for (size_t i = 0; i < row.ids.size(); ++i) {
      Continue(Tree::Child(node, p.vocab, row.ids[i]), depth + 1, mass * double(row.probs[i]));
    }
  }
};

inline std::vector<double> PlainLaw(const Tree& p, int tokens) {
  PlainEnumeration plain{p, tokens, std::vector<double>(TreeSize(p.vocab, tokens))};
  plain.Continue(1, 0, 1);
  return plain.law;
}

inline constexpr int kTokens = 4;  // tokens of the reply whose joint law is tested: the drafts and the bonus
inline constexpr int kBlock = 3;   // drafts per round
inline constexpr int64_t kBlocks = 500000;
inline constexpr double kSignificance = 1e-6;

struct Case {
  std::string name;
  Tree p, q;
  bool one_hot = false;  // q handed over as empty: the draft is the row's only id
};

using Rule = std::function<AcceptResult(const Case&, const AcceptInput&, TargetRow)>;

// One round, then plain decoding until kTokens tokens stand. Returns their node.
inline size_t Reply(const Case& c, uint64_t seed, const Rule& rule) {
  std::vector<int32_t> drafts;
  std::vector<DraftDistribution> q;
  std::vector<size_t> nodes = {1};  // of the prefix before each draft, and after the last
  for (int k = 0; k < kBlock; ++k) {
    const Distribution& row = c.q.at(nodes.back());
    drafts.push_back(row.Sample(UniformDouble(seed, uint64_t(k), Purpose::kDraft, uint32_t(k))));
    if (!c.one_hot) q.push_back({row.ids, row.probs});
    nodes.push_back(Tree::Child(nodes.back(), c.p.vocab, drafts.back()));
  }
  const AcceptInput input{.drafts = drafts, .q = q, .seed = seed, .position = 0};
  const AcceptResult result =
      rule(c, input, [&](int k) -> const Distribution& { return c.p.at(nodes[size_t(k)]); });

  size_t node = 1;
  for (int k = 0; k < kTokens; ++k) {
    int32_t token = result.next;
    if (k < result.accepted) token = drafts[size_t(k)];
    if (k > result.accepted) token = c.p.at(node).Sample(UniformDouble(seed, uint64_t(k), Purpose::kBonus));
    node = Tree::Child(node, c.p.vocab, token);
  }
  return node;
}

inline double PValue(const Case& c, uint64_t seed, const Rule& rule) {
  const std::vector<double> law = PlainLaw(c.p, kTokens);
  std::vector<int64_t> counts(law.size());
  for (int64_t i = 0; i < kBlocks; ++i) ++counts[Reply(c, seed * kBlocks + uint64_t(i), rule)];
  return ChiSquarePValue(counts, law);
}

inline std::vector<Case> Cases() {
  const int depth = kBlock + 1;
  const auto one_hot = [&](int vocab, uint64_t seed) {
    return RandomTree(vocab, depth, seed, {.temperature = 0});
  };
  const auto half = [](int from) {  // support {from, from + 1} of 4
    return [from](size_t node) { return Normalised({from, from + 1}, {1.0 + double(node % 3), 2.0}); };
  };
  const Tree plain = RandomTree(4, depth, 10);
  return {
      {"plain", plain, RandomTree(4, depth, 11)},
      {"hot", RandomTree(4, depth, 12, {.temperature = 1.7f}),
       RandomTree(4, depth, 13, {.temperature = 0.3f})},
      {"top_k", RandomTree(5, depth, 14, {.top_k = 2}), RandomTree(5, depth, 15)},
      {"top_p", RandomTree(5, depth, 16, {.top_p = 0.8f}), RandomTree(5, depth, 17, {.top_k = 3})},
      {"min_p", RandomTree(5, depth, 18, {.min_p = 0.2f}), RandomTree(5, depth, 19, {.min_p = 0.1f})},
      {"q_is_p", plain, plain},
      {"q_one_hot", plain, one_hot(4, 20), true},
      {"q_one_hot_written_out", plain, one_hot(4, 21)},
      {"disjoint", MakeTree(4, depth, half(0)), MakeTree(4, depth, half(2))},
      {"greedy", one_hot(4, 22), RandomTree(4, depth, 23)},
  };
}

}  // namespace dspark::test

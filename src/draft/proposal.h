// What a drafter hands to verification: a block of tokens and the distribution each was drawn from.
#pragma once

#include <cstdint>
#include <vector>

namespace dspark {

// A distribution over the vocabulary with few non-zero entries, ids ascending. The probabilities sum to 1.
struct SparseDistribution {
  std::vector<int32_t> ids;
  std::vector<float> probs;
};

struct Proposal {
  std::vector<int32_t> tokens;        // x_1 … x_n, n may be 0
  std::vector<SparseDistribution> q;  // what x_k was drawn from; empty when every q is one-hot at x_k
  std::vector<float> confidence;      // c_k estimates P(x_k accepted | those before are); empty when unknown
  int match_length = 0;  // prompt lookup: tokens of context that the copied text shares; 0 for others

  int size() const { return int(tokens.size()); }
  void Clear() {
    tokens.clear();
    q.clear();
    confidence.clear();
    match_length = 0;
  }
  // Keeps the first n drafts.
  void Trim(int n) {
    if (n < size()) tokens.resize(n);
    if (n < int(q.size())) q.resize(n);
    if (n < int(confidence.size())) confidence.resize(n);
  }
};

}  // namespace dspark

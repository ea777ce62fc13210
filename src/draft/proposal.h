// What a drafter hands to verification: a block of tokens and the distribution each was drawn from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

// A distribution over the vocabulary with few non-zero entries, ids ascending. The probabilities sum to 1.
struct SparseDistribution {
  std::span<const int32_t> ids;
  std::span<const float> probs;
};

// Whose drafts a proposal holds: how often they are kept is learned apart.
// kForced: text that a request's constraint leaves no choice about.
enum class DraftOrigin : uint8_t { kModel, kLookup, kTable, kForced };
inline constexpr int kDraftOrigins = 4;

struct Proposal {
  DraftOrigin origin = DraftOrigin::kModel;
  std::vector<int32_t> tokens;    // x_1 … x_n, n may be 0
  std::vector<float> confidence;  // c_k estimates P(x_k accepted | those before are); empty when unknown
  int match_length = 0;  // prompt lookup: tokens of context that the copied text shares; 0 for others

  int size() const { return int(tokens.size()); }
  // Whether drafts were drawn from distributions of their own; if not, every q is one-hot at its draft.
  bool sampled() const { return !q_end_.empty(); }
  // What x_{k+1} was drawn from. Valid until the proposal changes.
  SparseDistribution Q(int k) const {
    const size_t begin = k == 0 ? 0 : q_end_[k - 1], size = q_end_[k] - begin;
    return {{q_ids_.data() + begin, size}, {q_probs_.data() + begin, size}};
  }
  // Appends a draft and what it was drawn from; the first draft decides for all whether q is kept.
  void Add(int32_t token, const SparseDistribution& q) {
    tokens.push_back(token);
    q_ids_.insert(q_ids_.end(), q.ids.begin(), q.ids.end());
    q_probs_.insert(q_probs_.end(), q.probs.begin(), q.probs.end());
    q_end_.push_back(q_ids_.size());
  }
  void Clear() {
    tokens.clear();
    confidence.clear();
    match_length = 0;
    origin = DraftOrigin::kModel;
    q_ids_.clear();
    q_probs_.clear();
    q_end_.clear();
  }
  // Keeps the first n drafts.
  void Trim(int n) {
    if (n < size()) tokens.resize(n);
    if (n < int(confidence.size())) confidence.resize(n);
    if (n < int(q_end_.size())) {
      q_end_.resize(n);
      q_ids_.resize(n == 0 ? 0 : q_end_.back());
      q_probs_.resize(q_ids_.size());
    }
  }

 private:
  // Flat, so that a proposal that is filled again allocates nothing.
  std::vector<int32_t> q_ids_;
  std::vector<float> q_probs_;
  std::vector<size_t> q_end_;  // [n] or empty
};

}  // namespace dspark

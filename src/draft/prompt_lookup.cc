#include "draft/prompt_lookup.h"

#include <algorithm>

#include "core/check.h"
#include "core/token_hash.h"

namespace dspark {
namespace {

// Positions by the n-gram that ends there: hash chains, most recent first. A position is the number of tokens
// before it. N-grams whose hashes meet share a chain; who walks it compares tokens.
class NgramIndex {
 public:
  explicit NgramIndex(int n) : n_(n) {}

  int n() const { return n_; }

  void Clear() {
    previous_.clear();
    std::fill(heads_.begin(), heads_.end(), -1);
  }

  // Positions must come in order: 0, 1, 2 … Those with fewer than n tokens before them are only counted.
  void Add(std::span<const int32_t> tokens, int position) {
    DSPARK_CHECK_EQ(position, int(previous_.size()));
    if (previous_.size() == heads_.size()) Grow(tokens);
    previous_.push_back(-1);
    Link(tokens, position);
  }

  // The most recent position added whose n-gram may be the last n of `tokens`; -1 when there is none.
  int Find(std::span<const int32_t> tokens) const {
    if (int(tokens.size()) < n_ || heads_.empty()) return -1;
    return heads_[Slot(tokens, int(tokens.size()))];
  }
  int Previous(int position) const { return previous_[size_t(position)]; }

 private:
  size_t Slot(std::span<const int32_t> tokens, int position) const {
    const uint64_t hash = HashTokens(0, tokens.subspan(size_t(position - n_), size_t(n_)));
    return size_t(hash) & (heads_.size() - 1);
  }

  void Link(std::span<const int32_t> tokens, int position) {
    if (position < n_) return;
    int32_t& head = heads_[Slot(tokens, position)];
    previous_[size_t(position)] = head;
    head = position;
  }

  void Grow(std::span<const int32_t> tokens) {
    heads_.assign(std::max<size_t>(1024, 2 * heads_.size()), -1);
    for (size_t position = 0; position < previous_.size(); ++position) Link(tokens, int(position));
  }

  int n_;
  std::vector<int32_t> heads_;     // by hash, a power of two of them
  std::vector<int32_t> previous_;  // by position: the one before it in its chain
};

struct Match {
  int length = 0;
  int end = 0;  // the position behind it: what followed starts here
};

}  // namespace

// One sequence's tokens and their index. Only positions that some token follows are in the index, so the end
// of the text never matches itself.
class PromptLookup::Text {
 public:
  // Chains of short n-grams are long; a longer n-gram's chain holds all matches of its length and hardly any
  // other position. So the longer index is asked first, and the shorter one only when that knows nothing.
  explicit Text(const PromptLookupOptions& options)
      : options_(options), indices_{NgramIndex(2 * options.min_match), NgramIndex(options.min_match)} {}

  void Clear() {
    tokens_.clear();
    for (NgramIndex& index : indices_) index.Clear();
  }

  void Append(std::span<const int32_t> tokens) {
    for (int32_t token : tokens) {
      for (NgramIndex& index : indices_) index.Add(tokens_, int(tokens_.size()));
      tokens_.push_back(token);
    }
  }

  void Propose(int max_tokens, Proposal* proposal) const {
    if (max_tokens <= 0) return;
    const Match match = LongestMatch();
    if (match.length == 0) return;
    proposal->origin = DraftOrigin::kLookup;
    proposal->match_length = match.length;
    const size_t end = size_t(match.end), known = tokens_.size() - end;
    std::vector<int32_t>& copy = proposal->tokens;
    for (size_t i = 0; i < size_t(max_tokens); ++i)
      copy.push_back(i < known ? tokens_[end + i] : copy[i - known]);
  }

 private:
  Match LongestMatch() const {
    Match best;
    for (const NgramIndex& index : indices_) {
      int position = index.Find(tokens_);
      for (int probes = 0; position >= 0 && probes < options_.max_probes; ++probes) {
        const int length = MatchLength(position);
        if (length >= index.n() && length > best.length) best = {length, position};
        if (best.length == options_.max_match) return best;
        position = index.Previous(position);
      }
      if (best.length > 0) return best;
    }
    return best;
  }

  // How many tokens before `position` equal the last ones of the text, up to max_match.
  int MatchLength(int position) const {
    const int32_t* before = tokens_.data() + position;
    const int32_t* last = tokens_.data() + tokens_.size();
    const int limit = std::min(position, options_.max_match);
    int length = 0;
    while (length < limit && before[-length - 1] == last[-length - 1]) ++length;
    return length;
  }

  PromptLookupOptions options_;
  std::vector<int32_t> tokens_;
  NgramIndex indices_[2];
};

PromptLookup::PromptLookup(const PromptLookupOptions& options) : options_(options) {
  DSPARK_CHECK_GE(options.max_tokens, 1);
  DSPARK_CHECK_GE(options.min_match, 1);
  DSPARK_CHECK_GE(options.max_match, options.min_match);
  DSPARK_CHECK_GE(options.max_probes, 1);
}

PromptLookup::~PromptLookup() = default;

void PromptLookup::Begin(SequenceId sequence, std::span<const int32_t> prompt) {
  std::unique_ptr<Text>& text = texts_[sequence];
  if (!text && !unused_.empty()) {
    text = std::move(unused_.back());
    unused_.pop_back();
  }
  if (!text) text = std::make_unique<Text>(options_);
  text->Clear();
  text->Append(prompt);
}

void PromptLookup::Propose(std::span<ProposeRequest> requests) {
  for (const ProposeRequest& request : requests) {
    TextOf(request.sequence).Propose(std::min(request.max_tokens, options_.max_tokens), request.proposal);
  }
}

void PromptLookup::Observe(std::span<const ObservedRows> rows) {
  for (const ObservedRows& row : rows) TextOf(row.sequence).Append(row.next.last(size_t(row.committed)));
}

void PromptLookup::End(SequenceId sequence) {
  const auto at = texts_.find(sequence);
  DSPARK_CHECK(at != texts_.end());
  unused_.push_back(std::move(at->second));
  texts_.erase(at);
}

PromptLookup::Text& PromptLookup::TextOf(SequenceId sequence) {
  const auto at = texts_.find(sequence);
  DSPARK_CHECK(at != texts_.end());  // Begin comes first
  return *at->second;
}

}  // namespace dspark

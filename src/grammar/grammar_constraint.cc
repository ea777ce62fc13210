#include "grammar/grammar_constraint.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/check.h"

namespace dspark {
namespace {

constexpr size_t kMaxMasks = 32;
constexpr size_t kMaxForced = 128;        // bytes looked ahead
constexpr size_t kMaxRemembered = 50000;  // states and stacks that are not needed: some 10 MB

}  // namespace

GrammarConstraint::GrammarConstraint(std::shared_ptr<const ByteGrammar> grammar,
                                     std::shared_ptr<const TokenTrie> trie)
    : trie_(std::move(trie)),
      matcher_(std::move(grammar)),
      states_{matcher_.start()},
      limit_(kMaxRemembered) {}

std::unique_ptr<Constraint> GrammarConstraint::Clone() const {
  return std::make_unique<GrammarConstraint>(*this);
}

GrammarConstraint::State GrammarConstraint::After(State state, int32_t token) {
  const bool over = state == kEnded || matcher_.Complete(state);
  if (over) return trie_->Ends(token) || trie_->ends().empty() ? kEnded : Matcher::kDead;
  if (state == Matcher::kDead) return Matcher::kDead;
  if (trie_->Ends(token)) return matcher_.Whole(state) ? kEnded : Matcher::kDead;
  const std::string_view bytes = trie_->Bytes(token);
  return bytes.empty() ? Matcher::kDead : matcher_.Step(state, bytes);
}

bool GrammarConstraint::Allows(int32_t token) { return After(states_.back(), token) != Matcher::kDead; }

const TokenMask& GrammarConstraint::MaskOf(State state) {
  auto at = std::ranges::find(masks_, state, &CachedMask::state);
  if (at == masks_.end()) {
    if (masks_.size() < kMaxMasks) {
      masks_.emplace_back();
      at = masks_.end() - 1;
    } else {
      at = std::ranges::min_element(masks_, {}, &CachedMask::last_use);
    }
    *at = {state, 0, trie_->Allowed(matcher_, state)};
    for (const int32_t token : trie_->ends()) {
      if (matcher_.Whole(state)) at->mask[size_t(token) / 64] |= uint64_t(1) << token % 64;
    }
  }
  at->last_use = ++uses_;
  return at->mask;
}

void GrammarConstraint::Mask(std::span<float> logits) {
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  const State state = states_.back();
  if (Complete() && trie_->ends().empty()) return;
  if (state < 0) {
    std::vector<float> ends;
    for (const int32_t token : trie_->ends()) ends.push_back(logits[size_t(token)]);
    std::ranges::fill(logits, kForbidden);
    for (size_t i = 0; state == kEnded && i < ends.size(); ++i) logits[size_t(trie_->ends()[i])] = ends[i];
    return;
  }
  const TokenMask& mask = MaskOf(state);
  for (size_t begin = 0; begin < logits.size(); begin += 64) {
    const uint64_t word = begin / 64 < mask.size() ? mask[begin / 64] : 0;
    const size_t end = std::min(begin + 64, logits.size());
    if (word == ~uint64_t(0)) continue;
    for (size_t i = begin; i < end; ++i) logits[i] = word >> (i - begin) & 1 ? logits[i] : kForbidden;
  }
}

void GrammarConstraint::Push(int32_t token) {
  states_.push_back(After(states_.back(), token));
  if (matcher_.size() > limit_) Forget();
}

void GrammarConstraint::Forget() {
  matcher_.Keep(&states_);
  masks_.clear();
  limit_ = std::max(kMaxRemembered, 2 * matcher_.size());
}

void GrammarConstraint::Pop() {
  DSPARK_CHECK(states_.size() > 1);
  states_.pop_back();
}

std::vector<int32_t> GrammarConstraint::Forced(int most) {
  State state = states_.back();
  if (state < 0) return {};
  std::string text;
  while (text.size() < kMaxForced) {
    const auto byte = matcher_.OnlyByte(state);
    if (!byte) break;
    text += char(*byte);
    state = matcher_.Step(state, *byte);
  }
  std::vector<int32_t> tokens = trie_->Spell(text);
  if (int(tokens.size()) > most) tokens.resize(size_t(most));
  return tokens;
}

bool GrammarConstraint::Complete() { return states_.back() == kEnded || matcher_.Complete(states_.back()); }

}  // namespace dspark

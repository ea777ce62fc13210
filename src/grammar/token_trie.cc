#include "grammar/token_trie.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace dspark {

TokenTrie::TokenTrie(const Tokenizer& tokenizer, std::vector<int32_t> ends)
    : tokenizer_(tokenizer), ends_(std::move(ends)) {
  std::erase_if(ends_, [&](int32_t token) { return token < 0 || token >= vocab(); });
  std::vector<std::pair<std::string_view, int32_t>> sorted;
  for (int32_t token = 0; token < vocab(); ++token) {
    const std::string_view bytes = Bytes(token);
    if (!bytes.empty() && bytes.size() <= std::numeric_limits<uint16_t>::max())
      sorted.push_back({bytes, token});
    if (bytes.size() == 1) single_bytes_.set(uint8_t(bytes[0]));
  }
  std::ranges::sort(sorted);
  std::vector<int32_t> trail;  // nodes of the text before
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; trail.size() > depth; trail.pop_back())
      nodes_[size_t(trail.back())].behind = int32_t(nodes_.size());
  };
  for (const auto& [bytes, token] : sorted) {
    close(size_t(std::ranges::mismatch(bytes, before).in1 - bytes.begin()));
    while (trail.size() < bytes.size()) {
      trail.push_back(int32_t(nodes_.size()));
      nodes_.push_back({.byte = uint8_t(bytes[trail.size() - 1]),
                        .depth = uint16_t(trail.size() - 1),
                        .behind = 0,
                        .first = int32_t(tokens_.size()),
                        .count = 0});
    }
    ++nodes_[size_t(trail.back())].count;
    tokens_.push_back(token);
    max_depth_ = std::max(max_depth_, bytes.size());
    before = bytes;
  }
  close(0);
}

bool TokenTrie::Ends(int32_t token) const { return std::ranges::find(ends_, token) != ends_.end(); }

std::string_view TokenTrie::Bytes(int32_t token) const {
  return tokenizer_.IsSpecial(token) || Ends(token) ? std::string_view() : tokenizer_.TokenBytes(token);
}

TokenMask TokenTrie::Allowed(Matcher& matcher, Matcher::State state) const {
  TokenMask mask(size_t(vocab()) / 64 + 1);
  std::vector<Matcher::State> states(max_depth_ + 1);  // before each byte of the present text
  states[0] = state;
  for (size_t i = 0; i < nodes_.size();) {
    const Node& node = nodes_[i];
    const Matcher::State next = matcher.Step(states[node.depth], node.byte);
    if (next == Matcher::kDead) {
      i = size_t(node.behind);
      continue;
    }
    states[size_t(node.depth) + 1] = next;
    for (int32_t t = node.first; t < node.first + node.count; ++t) {
      const auto token = size_t(tokens_[size_t(t)]);
      mask[token / 64] |= uint64_t(1) << token % 64;
    }
    ++i;
  }
  return mask;
}

}  // namespace dspark

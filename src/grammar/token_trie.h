// A vocabulary by the bytes of its tokens: which tokens may come next is found in one walk over all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "grammar/matcher.h"
#include "load/tokenizer.h"

namespace dspark {

// One bit a token, 64 to a word.
using TokenMask = std::vector<uint64_t>;

class TokenTrie {
 public:
  // Made once for a tokenizer, which outlives it. `ends`: tokens that end a reply;
  // those outside the vocabulary are passed over.
  TokenTrie(const Tokenizer& tokenizer, std::vector<int32_t> ends);

  // Bytes that are tokens by themselves. A grammar of these alone (GrammarBuilder) always has a next token.
  const ByteSet& single_bytes() const { return single_bytes_; }
  int vocab() const { return tokenizer_.vocab(); }
  const std::vector<int32_t>& ends() const { return ends_; }
  bool Ends(int32_t token) const;
  // The token's bytes; none for tokens that never stand in a text: control tokens and tokens that end a
  // reply.
  std::string_view Bytes(int32_t token) const;
  // The tokens of a text, as the tokenizer cuts it.
  std::vector<int32_t> Spell(std::string_view text) const { return tokenizer_.Encode(text, false); }

  // Tokens whose bytes may follow `state`, which is not kDead; without those that end a reply. [vocab / 64 +
  // 1]
  TokenMask Allowed(Matcher& matcher, Matcher::State state) const;

 private:
  // In the order of the sorted texts: a node's descendants come behind it.
  struct Node {
    uint8_t byte;
    uint16_t depth;        // bytes before this one
    int32_t behind;        // the first node behind its descendants
    int32_t first, count;  // tokens that end here: in tokens_
  };

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ends_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  size_t max_depth_ = 0;
  ByteSet single_bytes_;
};

}  // namespace dspark

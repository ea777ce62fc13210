// Finds added tokens ("<|im_end|>") in text: the leftmost match, of several there the longest.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "load/tokenizer.h"

namespace dspark {

class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin, end;  // in the text, with the white space that a stripping token takes along
    int32_t id;
  };

  // Holds views of the texts in `tokens`, none of which is empty.
  explicit AddedTokenMatcher(const std::vector<const TokenizerSpec::Added*>& tokens);

  bool empty() const { return tokens_.empty(); }

  // The first match that begins at `from` or later (where the previous match ended).
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  const TokenizerSpec::Added* LongestAt(std::string_view text, size_t at) const;

  std::vector<const TokenizerSpec::Added*> tokens_;  // by first byte, then longest first
  std::array<uint32_t, 257> first_{};                // first byte → its range of tokens_
};

}  // namespace dspark

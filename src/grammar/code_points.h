// Sets of Unicode characters, and how they are written in UTF-8 and inside JSON strings.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/byte_grammar.h"

namespace dspark {

// Characters, without surrogates: disjoint ranges, ascending, none adjacent to the next.
class CodePointSet {
 public:
  CodePointSet() = default;
  CodePointSet(std::initializer_list<std::pair<char32_t, char32_t>> ranges);
  static CodePointSet All() { return {{0, 0x10ffff}}; }

  void Add(char32_t first, char32_t last);
  void Add(const CodePointSet& other);
  CodePointSet Complement() const;
  CodePointSet Minus(const CodePointSet& other) const;

  const std::vector<std::pair<char32_t, char32_t>>& ranges() const { return ranges_; }

 private:
  std::vector<std::pair<char32_t, char32_t>> ranges_;
};

// The characters of a text; broken ones become U+FFFD.
std::u32string DecodeUtf8(std::string_view text);

// One character of the set in UTF-8 (Unicode 15, table 3-7).
GrammarBuilder::Node Utf8CharOf(GrammarBuilder& builder, const CodePointSet& set);

// One character of the set as it stands in a JSON string: as itself, but quotation mark, backslash and
// control characters by their shortest escape.
GrammarBuilder::Node JsonStringChar(GrammarBuilder& builder, const CodePointSet& set);

// The same for a text, without quotation marks; it is UTF-8.
std::string JsonEscaped(std::string_view text);

}  // namespace dspark

// How deep a text is nested, before anything recurses over it.
#pragma once

#include <algorithm>
#include <string_view>

namespace dspark {

// Deeper JSON than anybody sends or a stack holds for certain.
inline constexpr int kMostJsonDepth = 256;

// Arrays and objects inside one another, at most, of a text that may be JSON. Brackets in strings do not
// count.
inline int JsonDepth(std::string_view text) {
  int depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '[' || c == '{')) {
      deepest = std::max(deepest, ++depth);
    } else if (!quoted && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace dspark

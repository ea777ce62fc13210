// JSON numbers between two bounds, exactly.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "grammar/byte_grammar.h"

namespace dspark {

// A decimal bound: ±digits × 10^exponent.
struct NumberBound {
  bool negative = false;
  std::string digits{};  // without leading zeros; empty: zero
  int exponent = 0;
  bool exclusive = false;
};

// Of a JSON number's text, which is one.
NumberBound ParseBound(std::string_view number, bool exclusive);

struct NumberRange {
  std::optional<NumberBound> min{}, max{};
  bool integer = false;
};

// Numbers have at most kMaxDigits digits before the point and as many behind it. Exponents are written only
// where there are no bounds and it is no integer, and have at most two digits.
inline constexpr int kMaxDigits = 15;
GrammarBuilder::Node NumberInRange(GrammarBuilder& builder, const NumberRange& range);

}  // namespace dspark

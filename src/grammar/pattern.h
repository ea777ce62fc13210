// Regular expressions of JSON Schema ("pattern"), as far as they are regular.
#pragma once

#include <string_view>

#include "core/result.h"
#include "grammar/byte_grammar.h"

namespace dspark {

// JSON strings, without their quotation marks, in which `pattern` matches somewhere; written in the one way
// of JsonStringChar. ECMA 262 with the u flag: literals, `.`, classes, \d \w \s and their complements,
// escapes of characters, groups, alternatives, * + ? {m} {m,} {m,n} up to 1000 (lazy ones too), and ^ and $
// at the ends of an alternative of the whole pattern. Error: what is not among these, and where; the text
// begins with "pattern".
Result<GrammarBuilder::Node> PatternString(GrammarBuilder& builder, std::string_view pattern);

}  // namespace dspark

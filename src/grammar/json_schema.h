// JSON Schema to grammars: the texts that a schema allows, or those of them that dspark lets a model write.
//
// Supported: type (one or several), properties, required, additionalProperties, items, prefixItems, minItems,
// maxItems, enum, const, anyOf, oneOf (read as anyOf), allOf (merged), $ref inside the document, minLength,
// maxLength, pattern (grammar/pattern.h), format (kFormats), minimum, maximum, exclusiveMinimum and
// exclusiveMaximum (exact, also for numbers), and true and false as schemas. Annotations and "x-…" are passed
// over; any other keyword is an error.
//
// Texts keep to one form: properties in the schema's order, required ones that it does not list behind them,
// and additional ones last. Where `properties` are given, there are additional ones only if
// additionalProperties says so, and where there is no `type`, the keywords tell it. White space is bounded
// (json_grammar.h), numbers as in number_range.h. Strings of a pattern, format, enum or const are written in
// one way (code_points.h).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/result.h"
#include "grammar/json_grammar.h"

namespace dspark {

// The values that `schema` allows. Error: one line with the place in the schema, such as "#/properties/name",
// and what is wrong there. Schemas may be 64 levels deep.
Result<GrammarBuilder::Node> CompileSchema(JsonGrammar& json, const nlohmann::ordered_json& schema);

// Formats of strings: date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid, uri. Null: unknown.
const char* FormatPattern(std::string_view format);

}  // namespace dspark

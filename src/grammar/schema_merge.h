// Two JSON schemas that both hold, as one.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/result.h"

namespace dspark {

// Neither has a $ref, anyOf, oneOf or allOf. Error: a keyword that both have and that cannot be merged; the
// text begins with it.
Result<nlohmann::ordered_json> MergeSchemas(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);

}  // namespace dspark

#include "grammar/schema_merge.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

bool Contains(const Json& array, const Json& value) {
  return std::ranges::any_of(array, [&](const Json& item) { return item == value; });
}

Json Intersection(const Json& a, const Json& b) {
  Json both = Json::array();
  for (const Json& value : a) {
    if (Contains(b, value)) both.push_back(value);
  }
  return both;
}

Json ListOf(const Json& value) { return value.is_array() ? value : Json::array({value}); }

// Integers are numbers too.
Json CommonTypes(const Json& a, const Json& b) {
  Json both = Intersection(a, b);
  for (const auto& [one, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (Contains(*one, "integer") && Contains(*other, "number") && !Contains(both, "integer"))
      both.push_back("integer");
  }
  return both;
}

Json Union(Json a, const Json& b) {
  for (const Json& value : b) {
    if (!Contains(a, value)) a.push_back(value);
  }
  return a;
}

Json BothOf(const Json& a, const Json& b) { return a == b ? a : Json{{"allOf", Json::array({a, b})}}; }

Json MergeProperties(Json a, const Json& b) {
  for (const auto& [name, schema] : b.items()) {
    const auto it = a.find(name);
    a[name] = it == a.end() ? schema : BothOf(*it, schema);
  }
  return a;
}

bool IsOneOf(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::ranges::find(keys, key) != keys.end();
}

// Where one part forbids what it does not list, the other must not list more.
bool ForbidsPropertiesOf(const Json& a, const Json& b) {
  if (!a.contains("additionalProperties") || a["additionalProperties"] == true || !b.contains("properties"))
    return false;
  const Json known = a.value("properties", Json::object());
  return !std::ranges::all_of(b["properties"].items(),
                              [&](const auto& p) { return known.contains(p.key()); });
}

// `a`'s value of `key` becomes one that says what both say. False: it cannot.
bool MergeValue(const std::string& key, const Json& value, Json* a) {
  Json& mine = (*a)[key];
  if (mine == value) return true;
  if (key == "type") {
    mine = CommonTypes(ListOf(mine), ListOf(value));
  } else if (key == "enum" && mine.is_array() && value.is_array()) {
    mine = Intersection(mine, value);
  } else if (key == "required" && mine.is_array() && value.is_array()) {
    mine = Union(mine, value);
  } else if (key == "properties" && mine.is_object() && value.is_object()) {
    mine = MergeProperties(mine, value);
  } else if (IsOneOf(key, {"items", "additionalProperties"})) {
    mine = BothOf(mine, value);
  } else if (IsOneOf(key, {"minimum", "exclusiveMinimum", "minLength", "minItems"})) {
    mine = std::max(mine, value);
  } else if (IsOneOf(key, {"maximum", "exclusiveMaximum", "maxLength", "maxItems"})) {
    mine = std::min(mine, value);
  } else {
    return !IsOneOf(key, {"pattern", "format", "prefixItems", "const", "enum", "required", "properties"});
  }
  return true;
}

}  // namespace

Result<Json> MergeSchemas(const Json& a, const Json& b) {
  if (ForbidsPropertiesOf(a, b) || ForbidsPropertiesOf(b, a))
    return Error{
        "\"additionalProperties\" of one part of allOf is about properties of another: that is not supported;"
        " list them all in one part"};
  Json merged = a;
  for (const auto& [key, value] : b.items()) {
    if (!merged.contains(key))
      merged[key] = value;
    else if (!MergeValue(key, value, &merged))
      return MakeError("\"{}\" is in several parts of allOf, which is not supported for it; keep one", key);
  }
  return merged;
}

}  // namespace dspark

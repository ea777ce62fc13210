#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "grammar/number_range.h"
#include "grammar/pattern.h"
#include "grammar/schema_merge.h"
#include "load/printable.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarBuilder::Node;

constexpr int kMaxLevels = 64;        // of the document
constexpr int kMaxDepth = 200;        // of schemas within schemas, by reference too
constexpr size_t kMaxSchemas = 2000;  // looked at
constexpr size_t kMaxValues = 10000;  // of the document
constexpr size_t kMaxName = 200;      // bytes of a property's name

constexpr std::string_view kAnnotations[] = {
    "title",     "description",      "default", "examples",    "$schema",    "$id",
    "$comment",  "$anchor",          "$defs",   "definitions", "deprecated", "readOnly",
    "writeOnly", "contentMediaType", "example", "nullable"};
constexpr std::string_view kObjectWords[] = {"properties", "required", "additionalProperties"};
constexpr std::string_view kArrayWords[] = {"items", "prefixItems", "minItems", "maxItems"};
constexpr std::string_view kStringWords[] = {"minLength", "maxLength", "pattern", "format"};
constexpr std::string_view kNumberWords[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
constexpr std::string_view kCombining[] = {"$ref", "anyOf", "oneOf", "allOf"};

template <size_t n>
bool IsOneOf(std::string_view key, const std::string_view (&keys)[n]) {
  return std::ranges::find(keys, key) != std::end(keys);
}

template <size_t n>
bool HasOneOf(const Json& schema, const std::string_view (&keys)[n]) {
  return std::ranges::any_of(keys, [&](std::string_view key) { return schema.contains(key); });
}

bool IsAnnotation(std::string_view key) { return IsOneOf(key, kAnnotations) || key.starts_with("x-"); }

// Whether the keyword says which values are allowed, in a way we know.
bool IsAssertion(std::string_view key) {
  return IsOneOf(key, kObjectWords) || IsOneOf(key, kArrayWords) || IsOneOf(key, kStringWords) ||
         IsOneOf(key, kNumberWords) || IsOneOf(key, kCombining) || key == "type" || key == "enum" ||
         key == "const";
}

bool Asserts(const Json& schema) {
  return !schema.is_object() ||
         !std::ranges::all_of(schema.items(), [](const auto& item) { return IsAnnotation(item.key()); });
}

int Levels(const Json& value, int most) {
  int deepest = 0;
  for (const Json& inner : value) {
    if (inner.is_structured() && most > 0) deepest = std::max(deepest, Levels(inner, most - 1));
  }
  return deepest + 1;
}

// Stops counting above `most`.
size_t Values(const Json& value, size_t most) {
  size_t count = 1;
  for (auto it = value.begin(); value.is_structured() && it != value.end() && count <= most; ++it)
    count += Values(*it, most - count);
  return count;
}

std::string TypeOf(const Json& value) {
  if (value.is_number_integer()) return "integer";
  return value.is_null() ? "null" : value.type_name();
}

bool IsOfType(const Json& value, const Json& types) {
  const std::string type = TypeOf(value);
  return std::ranges::any_of(
      types, [&](const Json& t) { return t == type || (t == "number" && type == "integer"); });
}

std::string PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string hex(text.substr(std::min(i + 1, text.size()), 2));
    const bool escape =
        text[i] == '%' && hex.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
    decoded += escape && hex.size() == 2 ? char(std::stoi(hex, nullptr, 16)) : text[i];
    if (escape && hex.size() == 2) i += 2;
  }
  return decoded;
}

// A schema and where it stands in the document.
struct Part {
  Json schema;
  std::string path;
};

class SchemaCompiler {
 public:
  SchemaCompiler(JsonGrammar& json, const Json& root) : json_(json), b_(json.builder()), root_(root) {}

  Result<Node> Compile(const Json& schema, const std::string& path) {
    if (depth_ >= kMaxDepth)
      return MakeError("{}: schemas refer to each other more than {} deep", path, kMaxDepth);
    if (++schemas_ > kMaxSchemas)
      return MakeError("{}: the schema has more than {} parts", path, kMaxSchemas);
    ++depth_;
    auto compiled = CompileHere(schema, path);
    --depth_;
    return compiled;
  }

 private:
  Result<Node> CompileHere(const Json& schema, const std::string& path) {
    DSPARK_RETURN_IF_ERROR(CheckKeywords(schema, path));
    if (schema.is_boolean()) return schema.get<bool>() ? json_.Value() : b_.Never();
    const auto own =
        std::ranges::count_if(schema.items(), [](const auto& i) { return !IsAnnotation(i.key()); });
    if (own == 1 && schema.contains("$ref")) return Reference(schema["$ref"], path);
    if (HasOneOf(schema, kCombining)) return Combined({{schema, path}});
    return Plain(schema, path);
  }

  static Status CheckKeywords(const Json& schema, const std::string& path) {
    if (schema.is_boolean()) return {};
    if (!schema.is_object()) return MakeError("{}: is no schema: it must be an object, true or false", path);
    for (const auto& [key, value] : schema.items()) {
      const bool harmless = key == "uniqueItems" && value == false;
      if (!IsAssertion(key) && !IsAnnotation(key) && !harmless)
        return MakeError("{}: the keyword \"{}\" is not supported", path, Printable(key));
    }
    return {};
  }

  Result<const Json*> Target(const Json& ref, const std::string& path) const {
    const std::string text = ref.is_string() ? ref.get<std::string>() : ref.dump();
    if (ref.is_string() && text.starts_with('#')) {
      try {
        const Json::json_pointer pointer(PercentDecoded(text.substr(1)));
        if (root_.contains(pointer)) return &root_[pointer];
      } catch (const Json::exception&) {  // no pointer: as one that leads nowhere
      }
    }
    return MakeError(
        "{}: $ref {} leads nowhere; only places in this schema, such as #/$defs/name, are supported", path,
        Printable(text));
  }

  Result<Node> Reference(const Json& ref, const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(const Json* target, Target(ref, path));
    const auto [it, is_new] = references_.try_emplace(ref.get<std::string>(), 0);
    if (!is_new) return it->second;
    const Node rule = it->second = b_.Declare();
    DSPARK_ASSIGN_OR_RETURN(const Node body, Compile(*target, Printable(ref.get<std::string>())));
    b_.Define(rule, body);
    return rule;
  }

  // Values of all the parts: references are followed, alternatives come to the top, and what is left is
  // merged.
  Result<Node> Combined(std::vector<Part> parts) {
    if (depth_ >= kMaxDepth || ++schemas_ > kMaxSchemas || b_.full())
      return MakeError("{}: its combinations of schemas are too many or without end", parts[0].path);
    const std::string path = parts[0].path;
    for (const Part& part : parts) {
      DSPARK_RETURN_IF_ERROR(CheckKeywords(part.schema, part.path));
      if (part.schema == false) return b_.Never();
    }
    std::erase_if(parts, [](const Part& part) { return part.schema == true || !Asserts(part.schema); });
    if (parts.empty()) return json_.Value();
    for (size_t i = 0; i < parts.size(); ++i) {
      for (const std::string_view word : kCombining) {
        if (!parts[i].schema.contains(word)) continue;
        if (parts.size() == 1 && word == "$ref" && parts[0].schema.size() == 1)
          return Compile(parts[0].schema, path);
        const std::string key(word);
        Part taken{parts[i].schema[key], parts[i].path + "/" + key};
        parts[i].schema.erase(key);
        ++depth_;
        auto combined = Distribute(std::move(parts), key, taken);
        --depth_;
        return combined;
      }
    }
    Json merged = std::move(parts[0].schema);
    for (size_t i = 1; i < parts.size(); ++i) {
      auto both = MergeSchemas(merged, parts[i].schema);
      if (!both) return MakeError("{}: {}", path, both.error().text);
      merged = std::move(both).value();
    }
    return Plain(merged, path);
  }

  // `parts` and the value of one combining keyword that was taken out of them.
  Result<Node> Distribute(std::vector<Part> parts, const std::string& key, const Part& taken) {
    if (key == "$ref") {
      DSPARK_ASSIGN_OR_RETURN(const Json* target, Target(taken.schema, taken.path));
      parts.push_back({*target, Printable(taken.schema.get<std::string>())});
      return Combined(std::move(parts));
    }
    if (!taken.schema.is_array() || taken.schema.empty())
      return MakeError("{}: must be an array of schemas, and not empty", taken.path);
    std::vector<Node> alternatives;
    for (size_t i = 0; i < taken.schema.size(); ++i) {
      Part part{taken.schema[i], fmt::format("{}/{}", taken.path, i)};
      if (key == "allOf") {
        parts.push_back(std::move(part));
        continue;
      }
      std::vector<Part> with = parts;
      with.insert(with.begin(), std::move(part));
      std::erase_if(with, [](const Part& p) { return p.schema.is_object() && !Asserts(p.schema); });
      if (with.empty()) return json_.Value();
      DSPARK_ASSIGN_OR_RETURN(const Node node, with.size() == 1 ? Compile(with[0].schema, with[0].path)
                                                                : Combined(std::move(with)));
      alternatives.push_back(node);
    }
    return key == "allOf" ? Combined(std::move(parts)) : Result<Node>(b_.Choice(std::move(alternatives)));
  }

  // Types that the schema names, or that its keywords are about. Empty: any.
  static Result<Json> TypesOf(const Json& schema, const std::string& path) {
    constexpr std::string_view kTypes[] = {"object",  "array",   "string", "number",
                                           "integer", "boolean", "null"};
    Json types = Json::array();
    if (const auto it = schema.find("type"); it != schema.end()) {
      types = it->is_array() ? *it : Json::array({*it});
      for (const Json& type : types) {
        if (!type.is_string() || !IsOneOf(type.get_ref<const std::string&>(), kTypes))
          return MakeError(
              "{}/type: {} is no type; use object, array, string, number, integer, boolean or null", path,
              Printable(type.dump(-1, ' ', true)));
      }
      return types;
    }
    if (HasOneOf(schema, kObjectWords)) types.push_back("object");
    if (HasOneOf(schema, kArrayWords)) types.push_back("array");
    if (HasOneOf(schema, kStringWords)) types.push_back("string");
    if (HasOneOf(schema, kNumberWords)) types.push_back("number");
    return types;
  }

  Result<Node> Plain(const Json& schema, const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(const Json types, TypesOf(schema, path));
    if (schema.contains("enum") || schema.contains("const")) return Values(schema, types, path);
    if (types.empty()) return schema.contains("type") ? b_.Never() : json_.Value();
    std::vector<Node> nodes;
    for (const Json& type : types) {
      DSPARK_ASSIGN_OR_RETURN(const Node node, OfType(schema, type.get<std::string>(), path));
      nodes.push_back(node);
    }
    return b_.Choice(std::move(nodes));
  }

  Result<Node> OfType(const Json& schema, const std::string& type, const std::string& path) {
    if (type == "object") return Object(schema, path);
    if (type == "array") return Array(schema, path);
    if (type == "string") return String(schema, path);
    if (type == "boolean") return b_.Choice({b_.Text("true"), b_.Text("false")});
    if (type == "null") return b_.Text("null");
    return Number(schema, type == "integer", path);
  }

  // enum and const.
  Result<Node> Values(const Json& schema, const Json& types, const std::string& path) {
    Json values = schema.contains("const") ? Json::array({schema["const"]}) : schema["enum"];
    if (!values.is_array()) return MakeError("{}/enum: must be an array", path);
    for (const auto& [key, value] : schema.items()) {
      if (!IsAnnotation(key) && key != "enum" && key != "const" && key != "type")
        return MakeError(
            "{}: \"{}\" beside enum or const is not supported; list only the values that are meant", path,
            key);
    }
    std::vector<std::string> scalars;
    std::vector<Node> nodes;
    for (const Json& value : values) {
      if (schema.contains("type") && !IsOfType(value, types)) continue;
      if (schema.contains("const") && schema.contains("enum") &&
          std::ranges::find(schema["enum"], value) == schema["enum"].end())
        continue;
      if (value.is_structured())
        nodes.push_back(json_.Literal(value));
      else
        scalars.push_back(JsonGrammar::ScalarText(value));
    }
    nodes.push_back(b_.Texts(std::move(scalars)));
    return b_.Choice(std::move(nodes));
  }

  // A count that is not negative, or `otherwise` where the schema does not say.
  static Result<int32_t> Count(const Json& schema, const char* key, int32_t otherwise,
                               const std::string& path) {
    const auto it = schema.find(key);
    if (it == schema.end()) return otherwise;
    const bool whole =
        it->is_number_integer() || (it->is_number() && it->get<double>() == int32_t(it->get<double>()));
    constexpr double kMost = 1e9;
    if (!whole || it->get<double>() < 0 || it->get<double>() > kMost)
      return MakeError("{}/{}: must be a whole number from 0 to {}", path, key, int64_t(kMost));
    return it->get<int32_t>();
  }

  Result<Node> String(const Json& schema, const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(const int32_t min, Count(schema, "minLength", 0, path));
    DSPARK_ASSIGN_OR_RETURN(const int32_t max, Count(schema, "maxLength", -1, path));
    const bool length = min > 0 || max >= 0;
    const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
    if (int(length) + has_pattern + has_format > 1)
      return MakeError(
          "{}: of a length, a pattern and a format only one is supported; write it all as a pattern", path);
    if (max >= 0 && min > max) return b_.Never();
    if (!has_pattern && !has_format) return json_.String(min, max);
    const char* key = has_pattern ? "pattern" : "format";
    if (!schema[key].is_string()) return MakeError("{}/{}: must be a string", path, key);
    std::string pattern = schema[key];
    if (has_format) {
      const char* known = FormatPattern(pattern);
      if (!known) return MakeError("{}/format: \"{}\" is not supported", path, Printable(pattern));
      pattern = known;
    }
    auto content = PatternString(b_, pattern);
    if (!content) return MakeError("{}: {}", path, content.error().text);
    return json_.Quoted(*content);
  }

  Result<Node> Number(const Json& schema, bool integer, const std::string& path) {
    NumberRange range{.integer = integer};
    const Json *least = nullptr, *most = nullptr;
    for (const std::string_view word : kNumberWords) {
      const auto it = schema.find(word);
      if (it == schema.end()) continue;
      if (!it->is_number()) return MakeError("{}/{}: must be a number", path, word);
      const bool exclusive = word.starts_with("exclusive"), is_min = word.ends_with("inimum");
      std::optional<NumberBound>& bound = is_min ? range.min : range.max;
      // The stricter of two bounds on one side.
      const char* other = is_min ? "minimum" : "maximum";
      if (bound && exclusive && schema[other].is_number()) {
        const bool stricter = is_min ? *it >= schema[other] : *it <= schema[other];
        if (!stricter) continue;
      }
      bound = ParseBound(it->dump(), exclusive);
      (is_min ? least : most) = &*it;
    }
    if (least && most && *least > *most) return b_.Never();
    return NumberInRange(b_, range);
  }

  Result<Node> Array(const Json& schema, const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(const int32_t min, Count(schema, "minItems", 0, path));
    DSPARK_ASSIGN_OR_RETURN(const int32_t max, Count(schema, "maxItems", -1, path));
    if (max >= 0 && min > max) return b_.Never();
    std::vector<Node> first;
    if (const auto it = schema.find("prefixItems"); it != schema.end()) {
      if (!it->is_array()) return MakeError("{}/prefixItems: must be an array of schemas", path);
      for (size_t i = 0; i < it->size(); ++i) {
        DSPARK_ASSIGN_OR_RETURN(const Node item,
                                Compile((*it)[i], fmt::format("{}/prefixItems/{}", path, i)));
        first.push_back(item);
      }
    }
    const bool more = schema.contains("items") || first.empty() || min > int32_t(first.size());
    Node item = more ? json_.Value() : b_.Never();
    if (const auto it = schema.find("items"); it != schema.end()) {
      if (it->is_array()) return MakeError("{}/items: an array is not supported; use prefixItems", path);
      DSPARK_ASSIGN_OR_RETURN(item, Compile(*it, path + "/items"));
    }
    return json_.ArrayOf(first, item, min, max);
  }

  // The names of `required`, each once.
  static Result<std::vector<std::string>> Required(const Json& schema, const std::string& path) {
    std::vector<std::string> names;
    const auto it = schema.find("required");
    if (it == schema.end()) return names;
    const auto strings = [](const Json& name) { return name.is_string(); };
    if (!it->is_array() || !std::ranges::all_of(*it, strings))
      return MakeError("{}/required: must be an array of names", path);
    if (it->size() > kMaxSchemas) return MakeError("{}/required: has more than {} names", path, kMaxSchemas);
    for (const Json& name : *it) {
      if (std::ranges::find(names, name.get_ref<const std::string&>()) == names.end()) names.push_back(name);
    }
    return names;
  }

  Result<Node> Object(const Json& schema, const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> required, Required(schema, path));
    const Json properties = schema.value("properties", Json::object());
    if (!properties.is_object()) return MakeError("{}/properties: must be an object of schemas", path);
    const auto extra = schema.find("additionalProperties");
    const bool open = extra != schema.end() ? *extra != false : !schema.contains("properties");
    Node other = json_.Value();
    if (extra != schema.end()) {
      DSPARK_ASSIGN_OR_RETURN(other, Compile(*extra, path + "/additionalProperties"));
    }
    std::vector<JsonGrammar::Property> members;
    std::vector<std::string> names;
    const auto add = [&](const std::string& name, Node value, bool is_required) {
      names.push_back(name);
      members.push_back({json_.MemberOf(json_.Literal(name), value), is_required});
    };
    for (const auto& [name, property] : properties.items()) {
      if (name.size() > kMaxName)
        return MakeError("{}/properties: names have at most {} bytes", path, kMaxName);
      DSPARK_ASSIGN_OR_RETURN(const Node value,
                              Compile(property, fmt::format("{}/properties/{}", path, Printable(name))));
      add(name, value, std::ranges::find(required, name) != required.end());
    }
    for (const std::string& name : required) {
      if (name.size() > kMaxName)
        return MakeError("{}/required: names have at most {} bytes", path, kMaxName);
      if (!properties.contains(name)) add(name, other, true);
    }
    if (!open) return json_.ObjectOf(members, b_.Never());
    const Node key = names.empty() ? json_.String() : json_.StringOtherThan(names);
    return json_.ObjectOf(members, json_.MemberOf(key, other));
  }

  JsonGrammar& json_;
  GrammarBuilder& b_;
  const Json& root_;
  std::map<std::string, Node> references_;
  int depth_ = 0;
  size_t schemas_ = 0;
};

}  // namespace

const char* FormatPattern(std::string_view format) {
// Days that exist, and 29 February in leap years (RFC 3339, with four digits of a year).
#define DSPARK_DATE                                                                                          \
  "((\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]" \
  ")))"                                                                                                      \
  "|((\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29))"
#define DSPARK_TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define DSPARK_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define DSPARK_BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
  static constexpr std::pair<std::string_view, const char*> kFormats[] = {
      {"date-time", "^" DSPARK_DATE "T" DSPARK_TIME "$"},
      {"date", "^" DSPARK_DATE "$"},
      {"time", "^" DSPARK_TIME "$"},
      {"duration",
       "^P(\\d{1,9}W|\\d{1,9}D(T\\d{1,9}[HMS])?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?"
       "|T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))$"},
      {"email",
       "^[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,30}){0,3}@" DSPARK_LABEL "(\\." DSPARK_LABEL "){1,4}$"},
      {"hostname", "^" DSPARK_LABEL "(\\." DSPARK_LABEL "){0,4}$"},
      {"ipv4", "^" DSPARK_BYTE "(\\." DSPARK_BYTE "){3}$"},
      {"ipv6", "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$"},
      {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
      {"uri", "^[A-Za-z][A-Za-z0-9+.-]{0,30}://[A-Za-z0-9._~:/?#@!$&'()*+,;=-]+$"},
  };
#undef DSPARK_DATE
#undef DSPARK_TIME
#undef DSPARK_LABEL
#undef DSPARK_BYTE
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return pattern;
  }
  return nullptr;
}

Result<Node> CompileSchema(JsonGrammar& json, const Json& schema) {
  if (Levels(schema, kMaxLevels) > kMaxLevels)
    return MakeError("#: the schema is more than {} levels deep; move inner parts to $defs", kMaxLevels);
  if (Values(schema, kMaxValues) > kMaxValues)
    return MakeError("#: the schema has more than {} values; make it simpler", kMaxValues);
  return SchemaCompiler(json, schema).Compile(schema, "#");
}

}  // namespace dspark

#include "grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar_check.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

Result<std::shared_ptr<const ByteGrammar>> Compile(const Json& schema) {
  GrammarBuilder b(test::AllBytes());
  JsonGrammar json(b);
  DSPARK_ASSIGN_OR_RETURN(const GrammarBuilder::Node root, CompileSchema(json, schema));
  return b.Finish(root);
}

Matcher MatcherOf(std::string_view schema) {
  auto grammar = Compile(Json::parse(schema));
  if (!grammar) CheckFailed(__FILE__, __LINE__, grammar.error().text);
  return Matcher(*grammar);
}

struct Case {
  const char* schema;
  std::vector<const char*> good, bad;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.schema; }

class SchemaKeyword : public testing::TestWithParam<Case> {};

TEST_P(SchemaKeyword, AllowsWhatItSays) {
  Matcher matcher = MatcherOf(GetParam().schema);
  for (const char* text : GetParam().good) EXPECT_TRUE(test::Accepts(matcher, text)) << text;
  for (const char* text : GetParam().bad) EXPECT_FALSE(test::Accepts(matcher, text)) << text;
}

const Case kKeywords[] = {
    {R"({"type":"string"})",
     {R"("")", R"("a\n\u00e9é\ud83d\ude00/\/")"},
     {R"("\ud83d")", R"("\x")", "\"\n\"", "\"\xff\"", "a", "\"a", "1", R"("\udc00")", "\"\xc3\""}},
    {R"({"type":"string","minLength":2,"maxLength":3})",
     {R"("ab")", R"("é€😀")", R"("a\n\u0041")", R"("\ud83d\ude00b")"},
     {R"("a")", R"("abcd")", R"("\ud83d\ude00")"}},
    {R"({"type":"string","pattern":"^a+$"})", {R"("aa")"}, {R"("ab")", R"("")"}},
    {R"({"type":"string","format":"date"})",
     {R"("2024-02-29")", R"("1999-12-31")", R"("2000-02-29")"},
     {R"("2023-02-29")", R"("1900-02-29")", R"("2023-13-01")", R"("2023-04-31")", R"("23-04-01")"}},
    {R"({"format":"date-time"})",
     {R"("2024-01-31T23:59:59Z")", R"("2024-01-31T00:00:00.123+05:30")"},
     {R"("2024-01-31T24:00:00Z")", R"("2024-01-31 10:00:00Z")", R"("2024-01-31T10:00:00")"}},
    {R"({"format":"uuid"})",
     {R"("123e4567-e89b-12d3-a456-426614174000")"},
     {R"("123e4567e89b12d3a456426614174000")", R"("")"}},
    {R"({"format":"ipv4"})", {R"("192.168.0.255")"}, {R"("256.1.1.1")", R"("1.2.3")", R"("01.2.3.4")"}},
    {R"({"format":"email"})", {R"("a.b@c.de")"}, {R"("a@b")", R"("a b@c.de")", R"("@c.de")"}},
    {R"({"format":"duration"})", {R"("P3D")", R"("PT1H30M")", R"("P2W")"}, {R"("P")", R"("PT")", R"("1D")"}},
    {R"({"type":"integer","minimum":-5,"exclusiveMaximum":12})",
     {"-5", "0", "11"},
     {"-6", "12", "1.0", "007", "+1"}},
    {R"({"type":"number","minimum":0.5,"maximum":1})",
     {"0.5", "1", "1.000", "0.75"},
     {"0.49", "1.001", "0", "5e-1"}},
    {R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"0", "\"true\"", "nul"}},
    {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
     {"[1]", "[1, 2]", "[\n  1,\n  2,\n  3\n]"},
     {"[]", "[1,2,3,4]", "[1,]", "[\"a\"]", "[1 ,2]"}},
    {R"({"prefixItems":[{"type":"string"},{"type":"integer"}]})",
     {"[\"a\",1]", "[\"a\"]", "[]"},
     {"[1]", "[\"a\",1,2]"}},
    {R"({"prefixItems":[{"const":1},{"const":2}],"items":{"const":3},"minItems":2,"maxItems":4})",
     {"[1,2]", "[1,2,3,3]"},
     {"[1]", "[1,2,3,3,3]", "[1,3]"}},
    {R"({"prefixItems":[{"const":1},{"const":2}],"maxItems":1})", {"[]", "[1]"}, {"[1,2]", "[2]"}},
    {R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}},
    {R"({"enum":["a","ab",1,null,{"x":[1,2]},"q\"t"]})",
     {R"("a")", R"("ab")", "1", "null", R"({"x": [1, 2]})", R"({"x":[1,2]})", R"("q\"t")"},
     {R"("b")", "2", R"({"x":[2,1]})", R"("")"}},
    {R"({"type":"string","enum":["a",1],"const":"a"})", {R"("a")"}, {"1"}},
    {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]})",
     {R"({"a":1})", R"({"a": 1, "b": "x"})", "{\n  \"a\": 1\n}"},
     {"{}", R"({"b":"x"})", R"({"b":"x","a":1})", R"({"a":1,"c":1})", R"({"a":1,"a":1})", R"({"a":1,})"}},
    {R"({"type":"object","properties":{"a":{},"b":{}}})",
     {"{}", R"({"b":[{}]})", R"({"a":1,"b":2})"},
     {R"({"c":1})", R"(,"a":1)"}},
    {R"({"properties":{"a":{"type":"integer"},"añ":{"type":"null"}},"additionalProperties":{"type":"boolean"}})",
     {R"({"b":true})", R"({"a":1,"aa":true,"":false,"añx":true})", R"({"a":1,"añ":null,"é":true})"},
     {R"({"a":true})", R"({"b":1})", R"({"x":true,"a":1})", R"({"añ":true})", R"({"\u0061":true})"}},
    {R"({"type":"object","additionalProperties":{"type":"integer"}})",
     {"{}", R"({"x":1,"y":2})"},
     {R"({"x":"1"})"}},
    {R"({"type":"object","required":["z"],"additionalProperties":false,"properties":{"z":true}})",
     {R"({"z":[1,{"q":null}]})"},
     {"{}", R"({"z":1,"y":1})"}},
    {R"({"type":"object","required":["later"],"properties":{"a":{"const":1}}})",
     {R"({"later":0})", R"({"a":1,"later":"x"})"},
     {R"({"a":1})"}},
    {R"({"anyOf":[{"type":"integer"},{"type":"array","items":{"$ref":"#"}}]})",
     {"1", "[1,[2,[]]]"},
     {"\"a\"", "[\"a\"]"}},
    {R"({"oneOf":[{"const":1},{"const":2}]})", {"1", "2"}, {"3"}},
    {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
     {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
     {"{}"}},
    {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer","minimum":0}},"required":["a"]},{"properties":{"a":{"maximum":5},"b":{"type":"null"}}}]})",
     {R"({"a":5})", R"({"a":0,"b":null})"},
     {R"({"a":6})", R"({"a":-1})", "{}"}},
    {R"({"allOf":[{"enum":[1,2,3]},{"enum":[2,3,4]}],"type":"integer"})", {"2", "3"}, {"1", "4"}},
    {R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/n"})",
     {R"({"v":1,"next":{"v":2,"next":null}})"},
     {R"({"v":1})", R"({"v":1,"next":{"v":2}})"}},
    {R"({"definitions":{"a b":{"type":"integer"}},"properties":{"x":{"$ref":"#/definitions/a%20b","description":"d"},"y":{"$ref":"#/properties/x","minimum":3}}})",
     {R"({"x":1,"y":3})"},
     {R"({"x":"1"})", R"({"y":2})"}},
    {"true", {"1", R"({"a":[true,false,null,"",-1.5e3]})"}, {"", "tru", "{a:1}"}},
    {R"({"description":"anything","x-note":1})", {"1", "[]"}, {""}},
    {R"({"anyOf":[false,{"const":1}]})", {"1"}, {"2"}},
    {R"({"type":"object","properties":{"never":false,"a":{"const":1}}})",
     {"{}", R"({"a":1})"},
     {R"({"never":1})"}},
    {R"({"minLength":1})", {R"("a")"}, {R"("")", "1"}},
};

INSTANTIATE_TEST_SUITE_P(All, SchemaKeyword, testing::ValuesIn(kKeywords));

TEST(JsonSchema, SaysWhereItFails) {
  const auto error_of = [](std::string_view schema) {
    const auto grammar = Compile(Json::parse(schema));
    return grammar.ok() ? std::string() : grammar.error().text;
  };
  EXPECT_EQ(error_of(R"({"type":"object","properties":{"a":{"not":{}}}})"),
            "#/properties/a: the keyword \"not\" is not supported");
  EXPECT_EQ(error_of(R"({"items":{"uniqueItems":true}})"),
            "#/items: the keyword \"uniqueItems\" is not supported");
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"strin"})", "#/type: \"strin\" is no type"},
      {R"([])", "#: is no schema"},
      {R"({"properties":[]})", "#/properties: must be an object"},
      {R"({"required":"a"})", "#/required: must be an array"},
      {R"({"minLength":-1})", "#/minLength: must be a whole number"},
      {R"({"maxItems":1.5})", "#/maxItems: must be a whole number"},
      {R"({"minimum":"1"})", "#/minimum: must be a number"},
      {R"({"items":[{}]})", "#/items: an array is not supported"},
      {R"({"anyOf":[]})", "#/anyOf: must be an array of schemas"},
      {R"({"anyOf":[{"if":{}}]})", "#/anyOf/0: the keyword \"if\""},
      {R"({"$ref":"#/$defs/no"})", "#: $ref #/$defs/no leads nowhere"},
      {R"({"$ref":"http://x/y"})", "leads nowhere"},
      {R"({"$ref":"#/~5"})", "leads nowhere"},
      {R"({"$ref":7})", "$ref 7 leads nowhere"},
      {R"({"format":"ipv9"})", "#/format: \"ipv9\" is not supported"},
      {R"s({"pattern":"(?=a)"})s", "#: pattern \"(?=a)\""},
      {R"({"pattern":"a","minLength":3})", "only one is supported"},
      {R"({"enum":[1],"minimum":0})", "\"minimum\" beside enum"},
      {R"({"allOf":[{"pattern":"a"},{"pattern":"b"}]})", "\"pattern\" is in several parts of allOf"},
      {R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]})",
       "additionalProperties"},
      {R"({"allOf":[{"type":"string"},{"type":"integer"}]})", "allows no text"},
      {R"({"type":"integer","minimum":5,"maximum":3})", "allows no text"},
      {R"({"type":"number","minimum":-3,"maximum":-5.5})", "allows no text"},
      {R"({"type":"number","minimum":5,"exclusiveMaximum":3})", "allows no text"},
      {R"({"type":"integer","minimum":3.5,"maximum":3.7})", "allows no text"},
      {R"({"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":4})", "allows no text"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
       "need themselves without end"},
      {R"({"$ref":"#"})", "allows no text"},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "begins with itself"},
      {R"({"$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}},"$ref":"#/$defs/a"})",
       "without end"},
  };
  for (const auto& [schema, expected] : cases)
    EXPECT_THAT(error_of(schema), testing::HasSubstr(expected)) << schema;
  Json deep = true;
  for (int i = 0; i < 200; ++i) deep = Json{{"items", deep}};
  EXPECT_THAT(Compile(deep).error().text, testing::HasSubstr("64 levels"));
  Json many = Json::array();
  for (int i = 0; i < 10000; ++i) many.push_back(i);
  EXPECT_THAT(Compile({{"enum", many}}).error().text, testing::HasSubstr("10000 values"));
  many.erase(0);
  many.erase(0);
  EXPECT_TRUE(Compile({{"enum", many}}).ok());
  Json wide = Json::object();
  for (int i = 0; i < 14; ++i)
    wide["allOf"].push_back({{"anyOf", {{{"minimum", i}}, {{"maximum", 90 - i}}, {{"type", "number"}}}}});
  EXPECT_THAT(Compile(wide).error().text, testing::HasSubstr("too many"));
}

// An independent reading of a schema: what dspark writes for it is a subset of what JSON Schema allows, and a
// compact text in the schema's order is in it iff the value is valid and lists nothing else.
bool Valid(const Json& schema, const Json& value, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref"))
    return Valid(root[Json::json_pointer(schema["$ref"].get<std::string>().substr(1))], value, root);
  if (schema.contains("anyOf")) {
    return std::ranges::any_of(schema["anyOf"], [&](const Json& s) { return Valid(s, value, root); });
  }
  if (schema.contains("enum")) return std::ranges::find(schema["enum"], value) != schema["enum"].end();
  const std::string type = schema["type"];
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer")
    return value.is_number_integer() && value >= schema["minimum"] && value <= schema["maximum"];
  if (type == "string") {
    if (!value.is_string()) return false;
    const auto& text = value.get_ref<const std::string&>();
    const auto length = std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; });
    return length >= schema["minLength"].get<int>() && length <= schema["maxLength"].get<int>();
  }
  if (type == "array") {
    return value.is_array() && value.size() >= schema["minItems"].get<size_t>() &&
           value.size() <= schema["maxItems"].get<size_t>() &&
           std::ranges::all_of(value, [&](const Json& item) { return Valid(schema["items"], item, root); });
  }
  if (!value.is_object()) return false;
  for (const Json& name : schema["required"]) {
    if (!value.contains(name.get<std::string>())) return false;
  }
  for (const auto& [name, member] : value.items()) {
    const auto known = schema["properties"].find(name);
    if (!Valid(known != schema["properties"].end() ? *known : schema["additionalProperties"], member, root))
      return false;
  }
  return true;
}

class RandomSchema {
 public:
  explicit RandomSchema(uint32_t seed) : random_(seed) {}

  Json Root() {
    Json schema = Object(3);
    schema["$defs"]["d"] = Schema(1);
    return schema;
  }

  // Valid, if the schema can be met in this depth.
  Json Value(const Json& s, const Json& root, int depth = 0) {
    if (depth > 12) return nullptr;
    if (s.is_boolean()) return 7;
    if (s.contains("$ref")) return Value(root["$defs"]["d"], root, depth + 1);
    if (s.contains("anyOf")) return Value(s["anyOf"][Below(s["anyOf"].size())], root, depth + 1);
    if (s.contains("enum")) return s["enum"][Below(s["enum"].size())];
    const std::string type = s["type"];
    if (type == "null") return nullptr;
    if (type == "boolean") return Below(2) == 0;
    if (type == "integer")
      return s["minimum"].get<int>() +
             int(Below(size_t(s["maximum"].get<int>() - s["minimum"].get<int>() + 1)));
    if (type == "string") return Text(Between(s["minLength"], s["maxLength"]));
    if (type == "array") {
      Json array = Json::array();
      for (size_t n = Between(s["minItems"], s["maxItems"]); n > 0; --n)
        array.push_back(Value(s["items"], root, depth + 1));
      return array;
    }
    Json object = Json::object();
    for (const auto& [name, property] : s["properties"].items()) {
      const bool needed = std::ranges::find(s["required"], Json(name)) != s["required"].end();
      if (needed || Below(2) == 0) object[name] = Value(property, root, depth + 1);
    }
    if (s["additionalProperties"] != false && Below(2) == 0)
      object["z" + std::to_string(Below(99))] = Value(s["additionalProperties"], root, depth + 1);
    return object;
  }

  // Something somewhere in it becomes something else.
  void Mutate(Json* value) {
    if (value->is_structured() && !value->empty() && Below(3) != 0) {
      auto at = value->begin();
      std::advance(at, std::ptrdiff_t(Below(value->size())));
      if (Below(4) == 0) {
        value->erase(at);
      } else {
        Mutate(&*at);
      }
      return;
    }
    const Json others[] = {nullptr,
                           true,
                           -3,
                           50,
                           1000,
                           "",
                           "añ",
                           "abcdefgh",
                           Json::array(),
                           Json::array({1, 2, 3, 4, 5, 6}),
                           Json::object()};
    *value = others[Below(std::size(others))];
  }

 private:
  size_t Below(size_t n) { return random_() % n; }
  size_t Between(const Json& low, const Json& high) {
    return low.get<size_t>() + Below(high.get<size_t>() - low.get<size_t>() + 1);
  }
  std::string Text(size_t length) {
    const char* letters[] = {"a", "B", "é", "\"", "\\", "\n", "€", "😀", " "};
    std::string text;
    while (length-- > 0) text += letters[Below(std::size(letters))];
    return text;
  }

  Json Schema(int depth) {
    switch (Below(depth > 0 ? 9 : 5)) {
      case 0:
        return {{"type", "boolean"}};
      case 1:
        return {{"type", "integer"}, {"minimum", int(Below(40)) - 20}, {"maximum", 20 + int(Below(100))}};
      case 2:
        return {{"type", "string"}, {"minLength", Below(3)}, {"maxLength", 3 + Below(4)}};
      case 3:
        return {{"enum", {"x", "xy", 3, nullptr, Json::array({1, "q"})}}};
      case 4:
        return {{"type", "null"}};
      case 5:
        return {{"type", "array"},
                {"items", Schema(depth - 1)},
                {"minItems", Below(2)},
                {"maxItems", 1 + Below(4)}};
      case 6:
        return {{"anyOf", {Schema(depth - 1), Schema(depth - 1)}}};
      case 7:
        return depth > 1 ? Json{{"$ref", "#/$defs/d"}} : Json(true);
      default:
        return Object(depth);
    }
  }

  Json Object(int depth) {
    Json schema = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
    for (size_t n = Below(4); n > 0; --n) {
      const std::string name = Text(1) + std::to_string(n);
      schema["properties"][name] = Schema(depth - 1);
      if (Below(2) == 0) schema["required"].push_back(name);
    }
    schema["additionalProperties"] = Below(2) == 0 ? Json(false) : Schema(0);
    return schema;
  }

  std::mt19937 random_;
};

TEST(JsonSchema, AgreesWithAnIndependentReading) {
  int valid = 0, invalid = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    RandomSchema make(seed);
    const Json schema = make.Root();
    auto grammar = Compile(schema);
    ASSERT_TRUE(grammar.ok()) << grammar.error().text << schema;
    Matcher matcher(*grammar);
    for (int i = 0; i < 30; ++i) {
      Json value = make.Value(schema, schema);
      for (int mutation = 0; mutation < 3; ++mutation) {
        const bool expected = Valid(schema, value, schema);
        expected ? ++valid : ++invalid;
        ASSERT_EQ(test::Accepts(matcher, value.dump()), expected) << value << " of " << schema;
        make.Mutate(&value);
      }
    }
  }
  EXPECT_GT(valid, 2000);
  EXPECT_GT(invalid, 2000);
}

TEST(JsonSchema, EveryTextOfItIsValid) {
  int texts = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    const Json schema = RandomSchema(seed).Root();
    Matcher matcher(std::move(Compile(schema)).value());
    std::mt19937 random(seed);
    for (int i = 0; i < 8; ++i) {
      const std::string text = test::RandomText(matcher, random, 4000);
      if (text.empty()) continue;
      ++texts;
      const Json value = Json::parse(text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << text;
      ASSERT_TRUE(Valid(schema, value, schema)) << text << " of " << schema;
    }
  }
  EXPECT_GT(texts, 900);
}

}  // namespace
}  // namespace dspark

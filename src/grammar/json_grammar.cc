#include "grammar/json_grammar.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "grammar/code_points.h"
#include "grammar/number_range.h"

namespace dspark {
namespace {

using Node = GrammarBuilder::Node;

constexpr int kMaxIndentation = 20;

Node Hex(GrammarBuilder& b, std::string_view digits) {
  ByteSet set;
  for (const char c : digits) set.set(uint8_t(c));
  return b.Bytes(set);
}

// Behind "\u": a character of the basic plane, or both halves of one beyond.
Node UnicodeEscape(GrammarBuilder& b) {
  const Node any = Hex(b, "0123456789abcdefABCDEF"), d = Hex(b, "dD");
  const Node not_d = Hex(b, "0123456789abcefABCEF"), low = b.Range('0', '7');
  const Node plain = b.Choice({b.Sequence({not_d, any, any, any}), b.Sequence({d, low, any, any})});
  const Node pair =
      b.Sequence({d, Hex(b, "89abAB"), any, any, b.Text("\\u"), d, Hex(b, "cdefCDEF"), any, any});
  return b.Choice({plain, pair});
}

// One character of a string, in any way.
Node AnyStringChar(GrammarBuilder& b) {
  const CodePointSet plain = CodePointSet({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}).Complement();
  const Node escape = b.Choice({Hex(b, "\"\\/bfnrt"), b.Sequence({b.Text("u"), UnicodeEscape(b)})});
  return b.Choice({Utf8CharOf(b, plain), b.Sequence({b.Text("\\"), escape})});
}

}  // namespace

JsonGrammar::JsonGrammar(GrammarBuilder& builder) : builder_(builder) {
  GrammarBuilder& b = builder_;
  const Node line = b.Sequence({b.Text("\n"), b.Repeat(b.Text(" "), 0, kMaxIndentation)});
  gap_ = b.Choice({b.Text(" "), line, b.Empty()});
  comma_ = b.Sequence({b.Text(","), gap_});
  char_ = AnyStringChar(b);
  value_ = b.Declare();
  object_ = ObjectOf({}, MemberOf(String(), value_));
  array_ = ArrayOf({}, value_, 0, -1);
  b.Define(value_, b.Choice({String(), NumberInRange(b, {}), object_, array_, b.Text("true"), b.Text("false"),
                             b.Text("null")}));
}

Node JsonGrammar::Value() { return value_; }
Node JsonGrammar::Object() { return object_; }
Node JsonGrammar::Array() { return array_; }

Node JsonGrammar::String(int32_t min, int32_t max) { return Quoted(builder_.Repeat(char_, min, max)); }

Node JsonGrammar::Quoted(Node content) {
  return builder_.Sequence({builder_.Text("\""), content, builder_.Text("\"")});
}

Node JsonGrammar::MemberOf(Node key, Node value) {
  return builder_.Sequence({key, builder_.Text(":"), builder_.Optional(builder_.Text(" ")), value});
}

std::string JsonGrammar::ScalarText(const Json& value) {
  return value.is_string() ? '"' + JsonEscaped(value.get_ref<const std::string&>()) + '"' : value.dump();
}

Node JsonGrammar::Literal(const Json& value) {
  if (value.is_array()) {
    std::vector<Node> items;
    for (const Json& item : value) items.push_back(Literal(item));
    return ArrayOf(items, builder_.Never(), int32_t(items.size()), int32_t(items.size()));
  }
  if (!value.is_object()) return builder_.Text(ScalarText(value));
  std::vector<Property> members;
  for (const auto& [key, member] : value.items())
    members.push_back({MemberOf(Literal(key), Literal(member)), true});
  return ObjectOf(members, builder_.Never());
}

// Strings that go on with none of the names behind their first `at` characters, which all share them.
Node JsonGrammar::Others(std::vector<std::u32string> names, size_t at) {
  GrammarBuilder& b = builder_;
  if (b.full()) return b.Empty();
  const Node any = b.Repeat(JsonStringChar(b, CodePointSet::All()), 0);
  std::map<char32_t, std::vector<std::u32string>> next;
  bool ends = false;
  for (std::u32string& name : names) {
    if (name.size() == at)
      ends = true;
    else
      next[name[at]].push_back(std::move(name));
  }
  CodePointSet known;
  std::vector<Node> parts;
  for (auto& [c, longer] : next) {
    known.Add(c, c);
    parts.push_back(b.Sequence({JsonStringChar(b, {{c, c}}), Others(std::move(longer), at + 1)}));
  }
  parts.push_back(b.Sequence({JsonStringChar(b, known.Complement()), any}));
  if (!ends) parts.push_back(b.Empty());
  return b.Choice(std::move(parts));
}

Node JsonGrammar::StringOtherThan(const std::vector<std::string>& names) {
  std::vector<std::u32string> decoded;
  for (const std::string& name : names) decoded.push_back(DecodeUtf8(name));
  return Quoted(Others(std::move(decoded), 0));
}

// Built from the end: what may follow property i where a member stands before it, and where none does.
Node JsonGrammar::ObjectOf(const std::vector<Property>& properties, Node more) {
  GrammarBuilder& b = builder_;
  const Node others = b.Repeat(b.Sequence({comma_, more}), 0);
  Node behind = others;
  Node at_start = b.Optional(b.Sequence({more, others}));
  for (size_t i = properties.size(); i-- > 0;) {
    const auto& [member, required] = properties[i];
    const Node with = b.Sequence({comma_, member, behind}), first = b.Sequence({member, behind});
    behind = required ? with : b.Choice({with, behind});
    at_start = required ? first : b.Choice({first, at_start});
  }
  return b.Sequence({b.Text("{"), gap_, at_start, gap_, b.Text("}")});
}

Node JsonGrammar::ArrayOf(const std::vector<Node>& first, Node more, int32_t min, int32_t max) {
  GrammarBuilder& b = builder_;
  const auto n = int32_t(first.size());
  const int32_t usable = max < 0 ? n : std::min(n, max);
  // What follows the first items, then item by item towards the beginning.
  const auto rest_min = std::max(0, min - n), rest_max = max < 0 ? -1 : std::max(0, max - n);
  const Node others = b.Repeat(b.Sequence({comma_, more}), rest_min, rest_max);
  Node items = others;
  if (n == 0 && rest_max != 0) {
    const Node some = b.Sequence({more, b.Repeat(b.Sequence({comma_, more}), std::max(0, rest_min - 1),
                                                 rest_max < 0 ? -1 : rest_max - 1)});
    items = min == 0 ? b.Optional(some) : some;
  }
  for (int32_t i = usable; i-- > 0;) {
    const Node with = b.Sequence({i == 0 ? b.Empty() : comma_, first[size_t(i)], items});
    items = i >= min ? b.Optional(with) : with;
  }
  return b.Sequence({b.Text("["), gap_, items, gap_, b.Text("]")});
}

}  // namespace dspark

// JSON texts as grammars: values, members, literals, and the white space between them.
//
// White space is optional and bounded, enough for compact and for pretty-printed text: a blank behind a colon
// or comma and inside brackets, or a line feed and up to 20 blanks anywhere but beside a colon.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "grammar/byte_grammar.h"

namespace dspark {

class JsonGrammar {
 public:
  using Node = GrammarBuilder::Node;
  using Json = nlohmann::ordered_json;

  explicit JsonGrammar(GrammarBuilder& builder);
  GrammarBuilder& builder() { return builder_; }

  Node Value();   // any; numbers as in number_range.h
  Node Object();  // any object
  Node Array();   // any array
  // Any string of min … max characters (max -1: no limit), written in any way JSON knows. Escaped surrogates
  // come in pairs.
  Node String(int32_t min = 0, int32_t max = -1);
  // Of a grammar of its content.
  Node Quoted(Node content);
  // That very value; white space as anywhere, strings in one way (JsonEscaped).
  Node Literal(const Json& value);
  // Its text in that form; for what is neither array nor object.
  static std::string ScalarText(const Json& value);
  // Any string but these, written in one way.
  Node StringOtherThan(const std::vector<std::string>& names);

  struct Property {
    Node member;  // MemberOf(…)
    bool required;
  };
  Node MemberOf(Node key, Node value);
  // These in their order, then any number of `more` members (Never(): none).
  Node ObjectOf(const std::vector<Property>& properties, Node more);
  // The first items each of its own kind, the others `more`; min … max items in all (max -1: no limit).
  Node ArrayOf(const std::vector<Node>& first, Node more, int32_t min, int32_t max);

 private:
  Node Others(std::vector<std::u32string> names, size_t at);

  GrammarBuilder& builder_;
  Node value_, object_, array_, char_, gap_, comma_;
};

}  // namespace dspark

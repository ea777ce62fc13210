// Context-free grammars over bytes: a graph of nodes, each of which stands for a set of byte strings.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace dspark {

using ByteSet = std::bitset<256>;

struct GrammarNode {
  enum class Kind : uint8_t {
    kBytes,     // one byte of a set; `first`: the set's index
    kSequence,  // its children, one after the other; none: the empty string
    kChoice,    // one of its children; none: nothing at all
    kRepeat,    // its child min … max times
    kRule,      // its child, which may be a node around it
  };
  Kind kind = Kind::kSequence;
  int32_t first = 0, count = 0;  // children: children[first … first + count)
  int32_t min = 0, max = 0;      // of kRepeat; max -1: any number
};

// A checked grammar, ready to match (matcher.h). Every node that can be reached begins some string, and no
// node begins with itself.
struct ByteGrammar {
  std::vector<GrammarNode> nodes;
  std::vector<int32_t> children;
  std::vector<ByteSet> sets;
  int32_t root = 0;
  // Bytes that all sets treat alike are one class.
  int classes = 0;
  std::vector<uint8_t> class_of;           // [256]
  std::vector<std::vector<bool>> set_has;  // [sets][classes]

  std::span<const int32_t> ChildrenOf(const GrammarNode& node) const {
    return std::span(children).subspan(size_t(node.first), size_t(node.count));
  }
};

// Makes grammars bottom-up. Equal nodes are one node, and what is plainly empty or impossible goes at once.
class GrammarBuilder {
 public:
  using Node = int32_t;
  // Largest grammar: nodes and children together. What is added beyond is dropped, and Finish fails.
  static constexpr size_t kMaxSize = 100000;

  // Strings that need a byte outside `available` are left out.
  explicit GrammarBuilder(const ByteSet& available);

  Node Bytes(const ByteSet& set);
  Node Range(uint8_t first, uint8_t last);
  Node Text(std::string_view text);
  Node Texts(std::vector<std::string> texts);  // one of them
  Node Sequence(std::vector<Node> children);
  Node Choice(std::vector<Node> children);
  Node Repeat(Node child, int32_t min, int32_t max = -1);  // 0 ≤ min ≤ max, or max -1
  Node Optional(Node child) { return Choice({child, Empty()}); }
  Node Empty() const { return 0; }
  Node Never() const { return 1; }

  // A name for what is defined later, perhaps by means of itself.
  Node Declare();
  void Define(Node rule, Node body);

  bool full() const { return size_ > kMaxSize; }

  // Error: the grammar is too large, has no string at all, or begins with itself; the text says which, not
  // where. The builder is of no more use.
  Result<std::shared_ptr<const ByteGrammar>> Finish(Node root);

 private:
  using Key = std::vector<int32_t>;
  Node TextsBehind(std::span<const std::string> sorted, size_t at);
  Node Add(GrammarNode::Kind kind, std::vector<Node> children, int32_t min = 0, int32_t max = 0);

  const ByteSet available_;
  ByteGrammar grammar_;
  std::map<Key, Node> known_;
  size_t size_ = 0;
};

}  // namespace dspark

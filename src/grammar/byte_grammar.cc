#include "grammar/byte_grammar.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/check.h"

namespace dspark {
namespace {

using Kind = GrammarNode::Kind;

// Sets `flag[node]` until nothing changes, where `holds` says so of a node given its children's flags. Nodes
// are mostly made after their children: few passes.
template <class Holds>
std::vector<bool> LeastFixedPoint(const ByteGrammar& g, Holds holds) {
  std::vector<bool> flag(g.nodes.size());
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < g.nodes.size(); ++i) {
      if (flag[i] || !holds(g.nodes[i], flag)) continue;
      flag[i] = changed = true;
    }
  }
  return flag;
}

template <class Flag>
bool All(const ByteGrammar& g, const GrammarNode& node, const Flag& flag) {
  return std::ranges::all_of(g.ChildrenOf(node), [&](int32_t child) { return flag[size_t(child)]; });
}

template <class Flag>
bool Any(const ByteGrammar& g, const GrammarNode& node, const Flag& flag) {
  return std::ranges::any_of(g.ChildrenOf(node), [&](int32_t child) { return flag[size_t(child)]; });
}

// Nodes that stand for a string made of bytes that `byte` holds for, or of none.
template <class Byte>
std::vector<bool> Deriving(const ByteGrammar& g, Byte byte) {
  return LeastFixedPoint(g, [&](const GrammarNode& node, const std::vector<bool>& flag) {
    switch (node.kind) {
      case Kind::kBytes:
        return byte(node);
      case Kind::kChoice:
        return Any(g, node, flag);
      case Kind::kRepeat:
        return node.min == 0 || All(g, node, flag);
      default:
        return All(g, node, flag);
    }
  });
}

// Nodes that stand for at least one string.
std::vector<bool> Productive(const ByteGrammar& g) {
  return Deriving(g, [&](const GrammarNode& node) { return g.sets[size_t(node.first)].any(); });
}

// Nodes that stand for the empty string, among others.
std::vector<bool> Nullable(const ByteGrammar& g) {
  return Deriving(g, [](const GrammarNode&) { return false; });
}

// Choices lose the children that stand for nothing, and repetitions that may be left out are left out.
void RemoveUnproductive(ByteGrammar* g, const std::vector<bool>& productive) {
  for (GrammarNode& node : g->nodes) {
    const auto begin = g->children.begin() + node.first;
    if (node.kind == Kind::kChoice) {
      const auto end = std::stable_partition(begin, begin + node.count,
                                             [&](int32_t child) { return productive[size_t(child)]; });
      node.count = int32_t(end - begin);
    } else if (node.kind == Kind::kRepeat && !productive[size_t(*begin)]) {
      node = {.kind = Kind::kSequence};
    }
  }
}

// Nodes in some string's derivation from the root.
std::vector<int32_t> Reachable(const ByteGrammar& g) {
  std::vector<bool> seen(g.nodes.size());
  std::vector<int32_t> found = {g.root};
  seen[size_t(g.root)] = true;
  for (size_t i = 0; i < found.size(); ++i) {
    const GrammarNode& node = g.nodes[size_t(found[i])];
    if (node.kind == Kind::kBytes) continue;
    for (const int32_t child : g.ChildrenOf(node)) {
      if (!seen[size_t(child)]) found.push_back(child);
      seen[size_t(child)] = true;
    }
  }
  return found;
}

// The children that a string of `node` can begin with.
std::span<const int32_t> Beginnings(const ByteGrammar& g, const GrammarNode& node,
                                    const std::vector<bool>& nullable) {
  if (node.kind == Kind::kBytes) return {};
  const auto children = g.ChildrenOf(node);
  if (node.kind != Kind::kSequence) return children;
  size_t n = 0;
  while (n < children.size() && nullable[size_t(children[n])]) ++n;
  return children.first(std::min(n + 1, children.size()));
}

// Whether a string of some node can begin with that node again: a matcher would never come to a byte.
bool BeginsWithItself(const ByteGrammar& g) {
  const std::vector<bool> nullable = Nullable(g);
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<uint8_t> mark(g.nodes.size(), kNew);
  struct Visit {
    int32_t node;
    size_t next;
  };
  std::vector<Visit> trail;
  const auto enter = [&](int32_t node) {
    mark[size_t(node)] = kOpen;
    trail.push_back({node, 0});
  };
  for (const int32_t start : Reachable(g)) {
    if (mark[size_t(start)] == kNew) enter(start);
    while (!trail.empty()) {
      Visit& visit = trail.back();
      const auto children = Beginnings(g, g.nodes[size_t(visit.node)], nullable);
      if (visit.next == children.size()) {
        mark[size_t(visit.node)] = kDone;
        trail.pop_back();
        continue;
      }
      const int32_t child = children[visit.next++];
      if (mark[size_t(child)] == kOpen) return true;
      if (mark[size_t(child)] == kNew) enter(child);
    }
  }
  return false;
}

void MakeClasses(ByteGrammar* g) {
  std::map<std::vector<bool>, uint8_t> class_by_members;
  g->class_of.resize(256);
  for (int byte = 0; byte < 256; ++byte) {
    std::vector<bool> members(g->sets.size());
    for (size_t set = 0; set < g->sets.size(); ++set) members[set] = g->sets[set][size_t(byte)];
    const auto next = uint8_t(class_by_members.size());
    g->class_of[size_t(byte)] = class_by_members.try_emplace(std::move(members), next).first->second;
  }
  g->classes = int(class_by_members.size());
  g->set_has.assign(g->sets.size(), std::vector<bool>(size_t(g->classes)));
  for (const auto& [members, c] : class_by_members) {
    for (size_t set = 0; set < members.size(); ++set) g->set_has[set][c] = members[set];
  }
}

}  // namespace

GrammarBuilder::Node GrammarBuilder::Add(Kind kind, std::vector<Node> children, int32_t min, int32_t max) {
  Key key = {int32_t(kind), min, max};
  key.insert(key.end(), children.begin(), children.end());
  if (const auto it = known_.find(key); it != known_.end()) return it->second;
  size_ += 1 + children.size();
  if (full()) return Empty();
  const auto node = Node(grammar_.nodes.size());
  grammar_.nodes.push_back({.kind = kind,
                            .first = int32_t(grammar_.children.size()),
                            .count = int32_t(children.size()),
                            .min = min,
                            .max = max});
  grammar_.children.insert(grammar_.children.end(), children.begin(), children.end());
  known_.emplace(std::move(key), node);
  return node;
}

GrammarBuilder::GrammarBuilder(const ByteSet& available) : available_(available) {
  Add(Kind::kSequence, {});
  Add(Kind::kChoice, {});
}

GrammarBuilder::Node GrammarBuilder::Bytes(const ByteSet& wanted) {
  const ByteSet set = wanted & available_;
  if (set.none()) return Never();
  const auto at = std::ranges::find(grammar_.sets, set);
  const auto index = int32_t(at - grammar_.sets.begin());
  if (at == grammar_.sets.end()) {
    grammar_.sets.push_back(set);
    size_ += 8;
  }
  const Key key = {int32_t(Kind::kBytes), index};
  if (const auto it = known_.find(key); it != known_.end()) return it->second;
  if (++size_; full()) return Empty();
  grammar_.nodes.push_back({.kind = Kind::kBytes, .first = index});
  return known_.emplace(key, Node(grammar_.nodes.size() - 1)).first->second;
}

GrammarBuilder::Node GrammarBuilder::Range(uint8_t first, uint8_t last) {
  ByteSet set;
  for (int byte = first; byte <= last; ++byte) set.set(size_t(byte));
  return Bytes(set);
}

GrammarBuilder::Node GrammarBuilder::Text(std::string_view text) {
  std::vector<Node> bytes;
  for (const char c : text) bytes.push_back(Range(uint8_t(c), uint8_t(c)));
  return Sequence(std::move(bytes));
}

GrammarBuilder::Node GrammarBuilder::Texts(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return TextsBehind(texts, 0);
}

// Texts that share their first `at` bytes: one reading as long as they share more.
GrammarBuilder::Node GrammarBuilder::TextsBehind(std::span<const std::string> sorted, size_t at) {
  if (sorted.empty()) return Never();
  const std::string_view first = sorted.front(), last = sorted.back();
  if (sorted.size() == 1) return Text(first.substr(at));
  if (full()) return Empty();
  const size_t shared = size_t(std::ranges::mismatch(first, last).in1 - first.begin());
  std::vector<Node> parts;
  if (first.size() == shared) parts.push_back(Empty());
  for (size_t i = !parts.empty(), end = i; i < sorted.size(); i = end) {
    while (end < sorted.size() && sorted[end][shared] == sorted[i][shared]) ++end;
    const auto lead = uint8_t(sorted[i][shared]);
    parts.push_back(Sequence({Range(lead, lead), TextsBehind(sorted.subspan(i, end - i), shared + 1)}));
  }
  return Sequence({Text(first.substr(at, shared - at)), Choice(std::move(parts))});
}

GrammarBuilder::Node GrammarBuilder::Sequence(std::vector<Node> children) {
  if (std::ranges::find(children, Never()) != children.end()) return Never();
  std::erase(children, Empty());
  if (children.empty()) return Empty();
  return children.size() == 1 ? children[0] : Add(Kind::kSequence, std::move(children));
}

// The empty string comes last: a matcher that tries the children in order comes to a byte without detours.
GrammarBuilder::Node GrammarBuilder::Choice(std::vector<Node> children) {
  std::erase(children, Never());
  const bool empty = std::erase(children, Empty()) > 0;
  std::vector<Node> unique;
  std::set<Node> seen;
  for (const Node child : children) {
    if (seen.insert(child).second) unique.push_back(child);
  }
  if (empty) unique.push_back(Empty());
  if (unique.empty()) return Never();
  return unique.size() == 1 ? unique[0] : Add(Kind::kChoice, std::move(unique));
}

GrammarBuilder::Node GrammarBuilder::Repeat(Node child, int32_t min, int32_t max) {
  DSPARK_CHECK(min >= 0 && (max < 0 || max >= min));
  if (max == 0 || child == Empty() || (child == Never() && min == 0)) return Empty();
  return (min == 1 && max == 1) || child == Never() ? child : Add(Kind::kRepeat, {child}, min, max);
}

GrammarBuilder::Node GrammarBuilder::Declare() {
  size_ += 2;
  if (full()) return Empty();
  grammar_.nodes.push_back({.kind = Kind::kRule, .first = int32_t(grammar_.children.size()), .count = 1});
  grammar_.children.push_back(Never());
  return Node(grammar_.nodes.size() - 1);
}

void GrammarBuilder::Define(Node rule, Node body) {
  if (full()) return;
  const GrammarNode& node = grammar_.nodes[size_t(rule)];
  DSPARK_CHECK(node.kind == Kind::kRule);
  grammar_.children[size_t(node.first)] = body;
}

Result<std::shared_ptr<const ByteGrammar>> GrammarBuilder::Finish(Node root) {
  if (full()) return MakeError("is too large: its grammar has more than {} parts; make it simpler", kMaxSize);
  auto grammar = std::make_shared<ByteGrammar>(std::move(grammar_));
  grammar->root = root;
  const std::vector<bool> productive = Productive(*grammar);
  if (!productive[size_t(root)])
    return Error{"allows no text at all: its parts contradict each other or need themselves without end"};
  RemoveUnproductive(grammar.get(), productive);
  if (BeginsWithItself(*grammar))
    return Error{"begins with itself without anything between; remove the circle of references"};
  MakeClasses(grammar.get());
  return std::shared_ptr<const ByteGrammar>(std::move(grammar));
}

}  // namespace dspark

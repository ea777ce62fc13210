#include "grammar/matcher.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace dspark {
namespace {

// As boost::hash_combine does it.
void Mix(size_t value, size_t* hash) { *hash ^= value + 0x9e3779b97f4a7c15 + (*hash << 6) + (*hash >> 2); }

}  // namespace

size_t Matcher::Hash::operator()(const Cell& cell) const {
  size_t hash = 0;
  for (const int32_t value : {cell.node, cell.count, cell.tail}) Mix(size_t(value), &hash);
  return hash;
}

size_t Matcher::Hash::operator()(const Readings& readings) const {
  size_t hash = 0;
  for (const int32_t value : readings) Mix(size_t(value), &hash);
  return hash;
}

Matcher::Matcher(std::shared_ptr<const ByteGrammar> grammar)
    : grammar_(std::move(grammar)), class_of_(grammar_->class_of) {
  start_ = InternState(Expand(Intern({grammar_->root, 0, kNothing})));
}

Matcher::State Matcher::Step(State state, std::string_view bytes) {
  for (const char byte : bytes) {
    if (state == kDead) return kDead;
    state = Step(state, uint8_t(byte));
  }
  return state;
}

std::optional<uint8_t> Matcher::OnlyByte(State state) const {
  if (state == kDead) return {};
  ByteSet next;
  for (const int32_t stack : states_[size_t(state)]) {
    if (stack == kNothing) return {};
    const GrammarNode& due = grammar_->nodes[size_t(cells_[size_t(stack)].node)];
    next |= grammar_->sets[size_t(due.first)];
    if (next.count() > 1) return {};
  }
  return uint8_t(next._Find_first());
}

int32_t Matcher::Intern(const Cell& cell) {
  const auto [it, is_new] = cell_ids_.try_emplace(cell, int32_t(cells_.size()));
  if (is_new) {
    cells_.push_back(cell);
    expanded_.emplace_back();
  }
  return it->second;
}

Matcher::State Matcher::InternState(Readings readings) {
  if (readings.empty()) return kDead;
  const auto [it, is_new] = state_ids_.try_emplace(readings, State(states_.size()));
  if (is_new) {
    whole_.push_back(std::ranges::find(readings, kNothing) != readings.end());
    states_.push_back(std::move(readings));
    next_.resize(next_.size() + size_t(grammar_->classes), kUnknown);
  }
  return it->second;
}

void Matcher::ClearMarks() {
  if (++mark_ != 0) return;
  std::ranges::fill(marks_, 0);
  mark_ = 1;
}

bool Matcher::Mark(int32_t stack) {
  if (marks_.size() <= cells_.size()) marks_.resize(2 * cells_.size() + 2);
  const size_t place = size_t(stack) + 1;  // kNothing's is 0
  return std::exchange(marks_[place], mark_) != mark_;
}

// What a node on top stands for, onto `pending`; the first to be tried last.
void Matcher::ExpandTop(Cell top, std::vector<int32_t>* pending) {
  const GrammarNode& node = grammar_->nodes[size_t(top.node)];
  const auto children = grammar_->ChildrenOf(node);
  switch (node.kind) {
    case GrammarNode::Kind::kSequence: {
      if (children.empty()) return pending->push_back(top.tail);
      const bool last = top.count + 1 == node.count;
      const int32_t rest = last ? top.tail : Intern({top.node, top.count + 1, top.tail});
      return pending->push_back(Intern({children[size_t(top.count)], 0, rest}));
    }
    case GrammarNode::Kind::kRepeat: {
      if (top.count >= node.min) pending->push_back(top.tail);
      // Rounds that are no longer counted are all one.
      const int32_t rounds = node.max < 0 ? std::min(top.count + 1, node.min) : top.count + 1;
      const int32_t rest = rounds == node.max ? top.tail : Intern({top.node, rounds, top.tail});
      return pending->push_back(Intern({children[0], 0, rest}));
    }
    default:
      for (size_t i = children.size(); i-- > 0;) pending->push_back(Intern({children[i], 0, top.tail}));
  }
}

// The readings of a stack whose top may be any node.
const Matcher::Readings& Matcher::Expand(int32_t stack) {
  if (!expanded_[size_t(stack)].empty()) return expanded_[size_t(stack)];
  // Beyond this, what is found has to do. Something is: see GrammarBuilder::Choice.
  constexpr int kMaxVisits = 20000;
  Readings readings;
  std::vector<int32_t> pending = {stack};
  ClearMarks();
  for (int visits = 0; !pending.empty(); ++visits) {
    if (!readings.empty() && (visits > kMaxVisits || readings.size() >= kMaxReadings)) break;
    const int32_t next = pending.back();
    pending.pop_back();
    if (!Mark(next)) continue;
    const bool due = next == kNothing ||
                     grammar_->nodes[size_t(cells_[size_t(next)].node)].kind == GrammarNode::Kind::kBytes;
    if (due)
      readings.push_back(next);
    else
      ExpandTop(cells_[size_t(next)], &pending);
  }
  DSPARK_CHECK(!readings.empty());
  return expanded_[size_t(stack)] = std::move(readings);
}

Matcher::State Matcher::Work(State state, uint8_t byte_class) {
  std::vector<int32_t> rests;  // stacks below the bytes that match
  for (const int32_t stack : states_[size_t(state)]) {
    if (stack == kNothing) continue;
    const Cell& cell = cells_[size_t(stack)];
    const int32_t set = grammar_->nodes[size_t(cell.node)].first;
    if (grammar_->set_has[size_t(set)][byte_class]) rests.push_back(cell.tail);
  }
  for (const int32_t rest : rests) {
    if (rest != kNothing) Expand(rest);
  }
  Readings readings;
  ClearMarks();
  const auto add = [&](int32_t stack) {
    if (readings.size() < kMaxReadings && Mark(stack)) readings.push_back(stack);
  };
  for (const int32_t rest : rests) {
    if (rest == kNothing)
      add(kNothing);
    else
      std::ranges::for_each(expanded_[size_t(rest)], add);
  }
  const State next = InternState(std::move(readings));
  return next_[size_t(state) * size_t(grammar_->classes) + byte_class] = next;
}

void Matcher::Keep(std::vector<State>* states) {
  Matcher fresh(grammar_);
  std::vector<int32_t> moved(cells_.size(), kNothing);
  // A stack's tail is older than the stack: all below it have moved when it does.
  const auto move = [&](int32_t stack) {
    std::vector<int32_t> trail;
    for (; stack != kNothing && moved[size_t(stack)] == kNothing; stack = cells_[size_t(stack)].tail)
      trail.push_back(stack);
    for (; !trail.empty(); trail.pop_back()) {
      Cell cell = cells_[size_t(trail.back())];
      if (cell.tail != kNothing) cell.tail = moved[size_t(cell.tail)];
      moved[size_t(trail.back())] = fresh.Intern(cell);
    }
  };
  for (State& state : *states) {
    if (state < 0) continue;
    Readings readings = states_[size_t(state)];
    for (int32_t& stack : readings) {
      move(stack);
      if (stack != kNothing) stack = moved[size_t(stack)];
    }
    state = fresh.InternState(std::move(readings));
  }
  *this = std::move(fresh);
}

}  // namespace dspark

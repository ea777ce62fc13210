// Whether bytes, one after the other, begin a string of a grammar: a pushdown automaton that follows all
// readings at once and remembers what it has worked out.
//
// A reading is a stack of what is still to come: nodes of the grammar, each with a count (children of a
// sequence that are done, rounds of a repetition). Stacks share their tails and equal ones are one number; a
// state is the list of its readings and a number too. A step that has been made once is a look into a table.
// The readings of an ambiguous grammar are limited: those found last are dropped. What is accepted is a
// string of the grammar all the same, and which readings stay is a function of the bytes.
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "grammar/byte_grammar.h"

namespace dspark {

class Matcher {
 public:
  using State = int32_t;
  static constexpr State kDead = -1;  // no string begins so
  static constexpr size_t kMaxReadings = 512;

  explicit Matcher(std::shared_ptr<const ByteGrammar> grammar);

  State start() const { return start_; }
  // The state behind one more byte. Not for kDead.
  State Step(State state, uint8_t byte) {
    const uint8_t byte_class = class_of_[byte];
    const State next = next_[size_t(state) * size_t(grammar_->classes) + byte_class];
    return next != kUnknown ? next : Work(state, byte_class);
  }
  // kDead stays so.
  State Step(State state, std::string_view bytes);
  // The bytes so far are a string of the grammar.
  bool Whole(State state) const { return state != kDead && whole_[size_t(state)]; }
  // … and none goes on.
  bool Complete(State state) const { return Whole(state) && states_[size_t(state)].size() == 1; }
  // The one byte that may come next. Nothing where there is a choice, the end of the text being one.
  std::optional<uint8_t> OnlyByte(State state) const;

  // States and stacks that are remembered.
  size_t size() const { return states_.size() + cells_.size(); }
  // Forgets all but `states`, which get new numbers, as does start(). Negative ones are none.
  void Keep(std::vector<State>* states);

 private:
  static constexpr State kUnknown = -2;
  static constexpr int32_t kNothing = -1;  // the empty stack

  // A stack: its top, and the stack below.
  struct Cell {
    int32_t node, count, tail;
    bool operator==(const Cell&) const = default;
  };
  // Stacks with a byte due, and perhaps the empty one, in the order in which they are found.
  using Readings = std::vector<int32_t>;
  struct Hash {
    size_t operator()(const Cell& cell) const;
    size_t operator()(const Readings& readings) const;
  };

  int32_t Intern(const Cell& cell);
  State InternState(Readings readings);
  const Readings& Expand(int32_t stack);
  void ExpandTop(Cell top, std::vector<int32_t>* pending);
  State Work(State state, uint8_t byte_class);
  // A mark on every stack that is cleared by the next call.
  void ClearMarks();
  bool Mark(int32_t stack);  // false: it was marked

  std::shared_ptr<const ByteGrammar> grammar_;
  std::vector<uint8_t> class_of_;  // [256]

  std::vector<Cell> cells_;
  std::unordered_map<Cell, int32_t, Hash> cell_ids_;
  std::vector<Readings> expanded_;  // [cells] empty: not worked out yet
  std::vector<uint32_t> marks_;     // [cells + 1] the empty stack first
  uint32_t mark_ = 0;

  std::vector<Readings> states_;
  std::unordered_map<Readings, State, Hash> state_ids_;
  std::vector<bool> whole_;  // [states]
  std::vector<State> next_;  // [states][classes]
  State start_ = 0;
};

}  // namespace dspark

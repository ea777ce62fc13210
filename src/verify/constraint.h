// A constraint on a reply's text, token by token: a grammar's state. Knows no engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace dspark {

// A state behind the tokens pushed so far. Verify row k sees drafts 1 … k: they are pushed, the row is
// masked, they are popped. Used by one thread at a time; clones are independent of each other.
class Constraint {
 public:
  virtual ~Constraint() = default;
  // A state behind the same tokens.
  virtual std::unique_ptr<Constraint> Clone() const = 0;

  // Whether `token` may come next. End-of-reply tokens may where the text is whole.
  virtual bool Allows(int32_t token) = 0;
  // Logits [V] of tokens that may not come next become -infinity. At least one stays while !Complete().
  virtual void Mask(std::span<float> logits) = 0;
  // A token that Allows; others make every later token forbidden until they are popped.
  virtual void Push(int32_t token) = 0;
  virtual void Pop() = 0;  // the last one pushed
  // Nothing but an end-of-reply token may follow: the reply ends here.
  virtual bool Complete() = 0;

  // Tokens that spell the text which alone may come next, `most` at most; none where there is a choice. How
  // a text is cut into tokens is a guess: others may spell it too.
  virtual std::vector<int32_t> Forced(int /*most*/) { return {}; }
};

}  // namespace dspark

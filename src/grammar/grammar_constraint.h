// Keeps a reply to a grammar (verify/constraint.h).
//
// Drafts may go on behind the end, and their rows need a distribution though nobody reads what is drawn from
// it: behind an end token more of them may follow, and where the vocabulary has none, anything.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "grammar/matcher.h"
#include "grammar/token_trie.h"
#include "verify/constraint.h"

namespace dspark {

class GrammarConstraint : public Constraint {
 public:
  // The grammar was built with the trie's single_bytes(): so there is always a next token.
  GrammarConstraint(std::shared_ptr<const ByteGrammar> grammar, std::shared_ptr<const TokenTrie> trie);

  std::unique_ptr<Constraint> Clone() const override;
  bool Allows(int32_t token) override;
  void Mask(std::span<float> logits) override;
  void Push(int32_t token) override;
  void Pop() override;
  bool Complete() override;
  std::vector<int32_t> Forced(int most) override;

 private:
  using State = Matcher::State;
  static constexpr State kEnded = -2;  // an end token was pushed

  struct CachedMask {
    State state;
    uint64_t last_use;
    TokenMask mask;
  };

  State After(State state, int32_t token);
  // Masks of states, those used last.
  const TokenMask& MaskOf(State state);
  // Keeps what the matcher remembers within bounds.
  void Forget();

  std::shared_ptr<const TokenTrie> trie_;
  Matcher matcher_;
  std::vector<State> states_;  // behind each token pushed, after the first state
  size_t limit_;               // of matcher_.size()
  std::vector<CachedMask> masks_;
  uint64_t uses_ = 0;
};

}  // namespace dspark

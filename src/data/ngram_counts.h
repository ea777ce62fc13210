// What follows which tokens in a model's answers, counted: the contents of a table drafter's file.
//
// An entry says for a context of 1 … order tokens which token followed most often, and how likely it is to
// follow in text that was not counted. A draft comes from the longest context that the table holds, so an
// entry is worth what it changes about that: most contexts go on as the shorter one says, and are left out.
#pragma once

#include <cstdint>
#include <vector>

#include "data/loss_mask.h"
#include "load/ngram_file.h"

namespace dspark {

// Conversations in memory: some 9 bytes a token.
class NgramCorpus {
 public:
  static constexpr int64_t kMostTokens = int64_t{1} << 31;

  // Supervised tokens are counted, behind contexts that may reach into the prompt. At most kMostTokens.
  void Add(const TrainTokens& conversation);

  int64_t conversations() const { return conversations_; }
  int64_t tokens() const { return int64_t(tokens_.size()); }
  int64_t answer_tokens() const { return int64_t(answers_.size()); }

 private:
  friend class NgramCounter;
  static constexpr int32_t kBegin = -1;  // before the first token of a conversation
  // Every so many conversations one is held out while probabilities are measured.
  static constexpr int kHeldOutEvery = 10;

  std::vector<int32_t> tokens_;    // conversations one behind another, kBegin before each
  std::vector<uint32_t> answers_;  // places of the supervised tokens, ascending
  std::vector<bool> held_out_;     // by place
  int64_t conversations_ = 0;
};

struct NgramCounts {
  std::vector<NgramEntry> entries;
  int64_t contexts = 0;  // that were counted at least twice; `entries` are of these
};

// The `most` entries, or fewer, that change most. Their probabilities are shares of hits: how often a table
// made of nine tenths of the conversations was right about the tenth, by order, count and the likeliest
// token's share of a context. `order` is 1 … kMaxNgramOrder, `vocab` above all tokens. Memory: 4 bytes an
// answer token and some 150 a context beside the corpus.
NgramCounts CountNgrams(const NgramCorpus& corpus, int order, int vocab, int64_t most);

}  // namespace dspark

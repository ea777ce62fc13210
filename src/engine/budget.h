// How many drafts each sequence may verify this step, as a pure function: expected tokens per millisecond,
// maximised.
//
// With cumulative acceptance a[r][j] = Π_{i ≤ j} c, candidates are admitted in descending order of a (within
// a sequence that is order of position), and the admission that gives the most (R + Σ a) / ms(rows) wins: the
// objective of the DSpark paper's Algorithm 1 (§3.2). Because ms is a staircase, the best admission is
// searched over all prefixes of that order. That is lossless where the acceptances given are functions of
// committed text only; where they come from drafts that were sampled, admission must stop at the first
// decline as in the paper, so that no draft's admission depends on itself or a later one (docs/lossless.md).
// Prompts that share the pass have to be read whatever lengths are chosen: their time is left out, or it
// would make dear drafts look cheap.
//
// The asynchronous form (§5.2): how many drafts the step verifies is decided from confidences of two steps
// ago, by a search over all admissions, and the most confident drafts of now fill the places.
#pragma once

#include <span>
#include <vector>

#include "engine/cost_table.h"

namespace dspark {

struct VerifyCandidate {
  std::span<const float> conditional;  // c_1 … c_n for the drafts at hand
  double row_ms = 0;                   // what each of its rows costs beside CostTable::Ms: depth
  int length = 0;                      // out: drafts to verify
};

// Speculation must promise this much more than plain decoding: an estimate's error should not cost speed.
inline constexpr double kGainMargin = 1.03;

struct StepShape {
  int base_rows = 0;                   // rows the step has anyway: one per decoding sequence, and prefill
  int room = 0;                        // drafts one pass can hold
  double draft_ms = 0;                 // what drafting would cost, while that is still to be decided
  double prompt_ms = 0;                // of the pass, what prompts add: it is no price of these tokens
  double depth_ms = 0;                 // of the rows the step has anyway, beside CostTable::Ms
  bool stop_at_first_decline = false;  // Algorithm 1 to the letter
};

class Budget {
 public:
  // Returns the tokens per millisecond that the choice comes to, or that speculation must come to.
  double Choose(const CostTable& costs, const StepShape& step, std::span<VerifyCandidate> candidates);
  // The `capacity` most confident drafts of all, at most as many as the pass has room for.
  void Fill(int capacity, const StepShape& step, std::span<VerifyCandidate> candidates);

 private:
  struct Entry {
    float cumulative;
    int sequence;
  };
  void Sort(std::span<VerifyCandidate> candidates);
  void Admit(int drafts, std::span<VerifyCandidate> candidates);
  std::vector<Entry> order_;  // kept between steps, so that choosing allocates nothing
};

}  // namespace dspark

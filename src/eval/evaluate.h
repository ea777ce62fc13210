// Drafters against plain decoding on a prompt set, all in one run.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/function_ref.h"
#include "engine/cost_table.h"
#include "eval/results.h"
#include "eval/rollout.h"

namespace dspark {

// What every run shares.
struct EvalSetting {
  Target& target;
  BlockPool& blocks;  // for `concurrency` sequences of the target's whole context
  const Tokenizer* tokenizer;
  ChatEncoder encoder;
  CostTable costs;  // may be empty unless some candidate's policy is adaptive
  RolloutOptions rollout;
  int concurrency = 1;  // prompts run together
};

struct Candidate {
  Drafter* drafter = nullptr;
  DrafterTraits traits;
  EngineOptions served;  // the policy; max_sequences and observer are set here
};

// Answers every prompt plainly and then, for each candidate, with whole blocks, sampled drafts accepted token
// by token, and with lengths and accept rule as served (one run where that comes to the same), group by
// group, so that what disturbs the machine disturbs all alike. Greedy answers are compared with the plain
// ones. `progress` is told the number of prompts done. One result for each candidate. Error: the model gave
// no distribution.
Result<std::vector<SuiteResult>> EvaluateSuite(const EvalSetting& setting, const Suite& suite,
                                               std::span<const Candidate> candidates,
                                               FunctionRef<void(int done)> progress);

}  // namespace dspark

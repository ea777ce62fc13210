// From logits to the distribution that is served: penalties, bias, temperature, top-k, top-p, min-p.
// Knows no model.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/isa.h"
#include "core/result.h"

namespace dspark {

// Defaults serve the model's own distribution.
struct SamplingParams {
  float temperature = 1;         // 0 … 100; below 1e-4 greedy: a one-hot of the argmax
  int top_k = 0;                 // 0: off
  float top_p = 1;               // 0 … 1; 1: off, 0: the most probable token
  float min_p = 0;               // 0 … 1; 0: off
  float repetition_penalty = 1;  // 0.01 … 100: logits of seen tokens are divided (if > 0) or multiplied
  float presence_penalty = 0;    // -2 … 2, as OpenAI's API: subtracted once from tokens of the reply
  float frequency_penalty = 0;   // -2 … 2: subtracted once per occurrence
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // (token, -100 … 100), added

  bool Greedy() const { return temperature < 1e-4f; }
  bool NeedsHistory() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

// For the edge, where requests and flags come in. Error: names the parameter, its value and what is allowed.
Status Validate(const SamplingParams& params, int vocab);

// Counts of the tokens seen so far, for penalties. `Generated` counts replies only (presence, frequency),
// `Seen` also the prompt (repetition). Verify row k sees drafts 1 … k as history: push them, score the row,
// pop them.
class TokenHistory {
 public:
  explicit TokenHistory(int vocab) : counts_(size_t(vocab)) {}
  void AddPrompt(int32_t token) { ++Touch(token).seen; }
  void Push(int32_t token) {
    Counts& counts = Touch(token);
    ++counts.seen, ++counts.generated;
  }
  void Pop(int32_t token) { --counts_[size_t(token)].seen, --counts_[size_t(token)].generated; }
  int Seen(int32_t token) const { return counts_[size_t(token)].seen; }
  int Generated(int32_t token) const { return counts_[size_t(token)].generated; }
  // Each token ever counted, once; after Pop some may have count 0 again.
  std::span<const int32_t> tokens() const { return tokens_; }

 private:
  struct Counts {
    int32_t seen = 0, generated = 0;
    bool listed = false;
  };
  Counts& Touch(int32_t token) {
    Counts& counts = counts_[size_t(token)];
    if (!counts.listed) {
      counts.listed = true;
      tokens_.push_back(token);
    }
    return counts;
  }
  std::vector<Counts> counts_;  // by token
  std::vector<int32_t> tokens_;
};

// A token's logit under the request's penalties: repetition, frequency, presence.
float Penalised(float logit, int32_t token, const SamplingParams& params, const TokenHistory& history);

// A served distribution: the tokens that survive truncation with their probabilities, or greedy's single
// token. Dense over ids when nothing truncates. Reused from row to row without allocating.
struct Distribution {
  std::vector<int32_t> ids;                  // survivors, ascending; never empty
  std::vector<float> probs;                  // sum to 1
  float ProbabilityOf(int32_t token) const;  // 0 when it did not survive
  int32_t Sample(double u) const;            // inverse CDF in id order, u in [0, 1)
};

// Applies bias and penalties to `logits` in place, then fills `out`. Order: logit bias, repetition, frequency
// and presence penalty, temperature, top-k, top-p (of the mass that top-k left), min-p (relative to the
// largest), as Hugging Face transformers and vLLM do. Each truncation keeps at least one token; ties at its
// boundary go to the lower id. `history` may be null unless params.NeedsHistory(). Deterministic: a function
// of its arguments alone, so that p for a row is the same with and without drafts. False when the
// logits are not numbers to sample from: the largest is NaN or infinite or, unless greedy or masked by top-k,
// any is NaN. `out` is then a one-hot of some token.
bool ServedDistribution(Isa isa, std::span<float> logits, const SamplingParams& params,
                        const TokenHistory* history, Distribution* out);

}  // namespace dspark

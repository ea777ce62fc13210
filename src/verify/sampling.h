// From logits to the distribution that is served: penalties, bias, temperature, top-k, top-p, min-p. Knows no model.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/isa.h"

namespace dspark {

// Defaults serve the model's own distribution. temperature 0 is greedy: a one-hot of the argmax.
struct SamplingParams {
  float temperature = 1;
  int top_k = 0;        // 0: off
  float top_p = 1;      // 1: off
  float min_p = 0;      // 0: off
  float repetition_penalty = 1;  // >1: logits of seen tokens are divided (positive) or multiplied (negative)
  float presence_penalty = 0, frequency_penalty = 0;  // OpenAI's
  std::vector<std::pair<int32_t, float>> logit_bias;

  bool NeedsHistory() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
};

// Counts of the tokens seen so far, for penalties. `generated` counts replies only (presence, frequency), `seen` also the
// prompt (repetition). Verify row k sees drafts 1 … k as history: push them, score the row, pop them.
class TokenHistory {
 public:
  explicit TokenHistory(int vocab) : seen_(vocab), generated_(vocab) {}
  void AddPrompt(int32_t token) { ++seen_[token]; }
  void Push(int32_t token) { ++seen_[token], ++generated_[token]; }
  void Pop(int32_t token) { --seen_[token], --generated_[token]; }
  int Seen(int32_t token) const { return seen_[token]; }
  int Generated(int32_t token) const { return generated_[token]; }

 private:
  std::vector<int32_t> seen_, generated_;
};

// A served distribution: the tokens that survive truncation with their probabilities, or greedy's single token.
// Dense over ids when nothing truncates. Reused from row to row without allocating.
struct Distribution {
  std::vector<int32_t> ids;   // survivors, ascending
  std::vector<float> probs;   // sum to 1
  float ProbabilityOf(int32_t token) const;  // 0 when it did not survive
  int32_t Sample(double u) const;            // inverse CDF in id order, u in [0, 1)
};

// Applies bias and penalties to `logits` in place, then fills `out`. Order: logit bias, penalties, temperature, top-k,
// top-p, min-p (top-p and min-p after temperature, as vLLM does). Ties at a truncation boundary go to the lower id.
// Deterministic: a function of its arguments alone, so that p for a row is the same with and without drafts.
void ServedDistribution(Isa isa, std::span<float> logits, const SamplingParams& params, const TokenHistory* history,
                        Distribution* out);

}  // namespace dspark

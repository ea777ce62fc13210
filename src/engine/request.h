// What a caller asks for and what it gets back. The only types a server or an app needs beside Engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "draft/drafter.h"
#include "verify/constraint.h"
#include "verify/sampling.h"

namespace dspark {

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  uint64_t seed = 0;
  int max_tokens = 256;
  bool ignore_eos = false;           // end-of-reply tokens of the model do not end this reply
  std::vector<int32_t> stop_tokens;  // end the reply; kept in `tokens`, not in the text
  std::vector<std::string> stop;     // end the reply; the text stops before the match
  int top_logprobs = -1;             // ≥ 0: log-probabilities of each token and of that many best ones
  bool speculate = true;             // false: every proposal has length 0
  // Drafts are the drafter's best guesses, never drawn: the reply is plain decoding's for this seed whatever
  // else runs, though fewer drafts of a sampled reply are kept.
  bool reproducible = false;
  std::shared_ptr<const Constraint> constraint;  // the reply keeps to it; the sequence has its own clone
};

enum class FinishReason {
  kNone,       // still running
  kStop,       // an end token, a stop token or a stop string
  kLength,     // max_tokens, or the end of the context
  kCancelled,  // Engine::Cancel
  kError,      // the model gave no distribution; TokenEvent::error says where
};

// OpenAI's words: "stop", "length"; "cancelled" and "error" are ours.
const char* FinishReasonName(FinishReason reason);

// log p of the model's own distribution (temperature 1, nothing truncated, before penalties).
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Rounds are counted after the prompt's last pass, which gives the first token. τ = committed / rounds.
struct SequenceStats {
  int prompt_tokens = 0, completion_tokens = 0;
  int cached_tokens = 0;               // of the prompt, whose K/V earlier text had left
  int rounds = 0;                      // forward passes after the prompt's last one
  int committed = 0;                   // tokens of the reply that came out of rounds
  int drafted = 0, accepted = 0;       // drafts verified; drafts kept
  std::vector<int> verified_at;        // [k]: rounds in which draft k + 1 was verified
  std::vector<int> reached_at;         // [k]: of these, rounds that kept all drafts before it
  std::vector<int> accepted_at;        // [k]: rounds in which draft k + 1 was kept
  double prompt_ms = 0;                // steps up to the first token
  double decode_ms = 0;                // rounds, drafting and verification included
  double draft_ms = 0, verify_ms = 0;  // of decode_ms: proposing; target pass and accept rule

  double Tau() const { return rounds ? double(committed) / rounds : 0; }
  // Committed tokens per row that was run for them (drafters.md §9).
  double VerifyRate() const { return rounds ? double(committed) / (drafted + rounds) : 0; }
};

// One committed token, in order. Text lags behind tokens while a character or a possible stop string is
// incomplete.
struct TokenEvent {
  SequenceId sequence = 0;
  int32_t token = -1;               // -1: no token, only the end (cancelled or error)
  bool drafted = false;             // an accepted draft, not the extra token of its round
  std::string text{};               // the text this token completes
  TokenLogprob logprob{};           // where top_logprobs ≥ 0
  std::vector<TokenLogprob> top{};  // best first
  FinishReason finish = FinishReason::kNone;
  std::string error{};                           // with kError: one line
  std::shared_ptr<const SequenceStats> stats{};  // with `finish`
};

}  // namespace dspark

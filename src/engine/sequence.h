// One sequence: its tokens, its KV, and what the engine remembers about it between steps.
//
// Invariant between steps: K/V of positions 0 … computed - 1 are in the cache, and computed < tokens.size().
// The tokens from `computed` on are pending: the whole prompt at first, exactly one token (the newest) while
// decoding. So prefill and decoding are one path: run the pending tokens, with drafts behind them if the step
// reaches the last one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/acceptance.h"
#include "engine/draft_plan.h"
#include "engine/request_sampler.h"
#include "kv/prefix_cache.h"
#include "load/tokenizer.h"

namespace dspark {

// Turns tokens into text and watches for stop strings. Text that may be the beginning of a stop string is
// held back.
class ReplyText {
 public:
  ReplyText(const Tokenizer* tokenizer, std::vector<std::string> stop) : stop_(std::move(stop)) {
    if (tokenizer) detokenizer_ = std::make_unique<Detokenizer>(*tokenizer);
  }
  // The text that is now certain. Sets *stopped when a stop string is complete; then the text ends before it.
  std::string Add(int32_t token, bool* stopped);
  // What was held back, at the end of a reply that met no stop string.
  std::string Finish();

 private:
  std::string Release(bool* stopped);
  std::unique_ptr<Detokenizer> detokenizer_;
  std::vector<std::string> stop_;
  std::string held_;
};

struct Sequence {
  SequenceId id = 0;
  Request request;
  std::vector<int32_t> tokens;  // prompt, then what was committed
  int computed = 0;             // positions in the KV cache
  KvTable kv;
  PrefixCache::Place place;                // of the last full block that the cache knows
  int rows = 0;                            // pending tokens run in the present step
  std::optional<TokenHistory> history;     // only where penalties need it
  std::unique_ptr<Constraint> constraint;  // only where the request has one
  ReplyText text;
  Proposal proposal;                       // of the present step
  std::vector<float> proposed_confidence;  // the proposal's before it was trimmed; kept for an observer only
  RequestSampler sampler;
  DraftWatch watch;
  DraftBackoff backoff;        // of running the drafter
  DraftBackoff trial_backoff;  // of verifying drafts that cost nothing to make
  SequenceStats stats;
  FinishReason finish = FinishReason::kNone;

  Sequence(SequenceId sequence_id, Request r, BlockPool& pool, const Tokenizer* tokenizer, int vocab);

  int Pending() const { return int(tokens.size()) - computed; }
  int Generated() const { return int(tokens.size() - request.prompt.size()); }
};

}  // namespace dspark

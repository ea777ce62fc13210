// A drafter proposes; what it proposes never changes what the text may be, only how fast it comes.
//
// Life of a sequence: Begin, then steps of Propose and Observe, then End. Observe sees every row that entered
// the target's K/V for good, once and in order: the prompt's rows, then of each round the newest token's row
// and those of its accepted drafts. Rows that a prefix cache restored count as observed (Resume).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "draft/proposal.h"
#include "kv/block_pool.h"

namespace dspark {

using SequenceId = int64_t;

// Turns draft logits into a draft: the one place where q is made, so that q is exactly what was drawn from.
class DraftSampler {
 public:
  virtual ~DraftSampler() = default;
  // Called on the thread that called Propose. Draws the next draft of `proposal` among candidates (`ids`
  // distinct, `logits` may be overwritten) and appends it with its q. Returns the token.
  virtual int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) = 0;
  // Whether Draw takes the likeliest candidate: then many should be given, for penalties may overturn their
  // order.
  virtual bool greedy() const { return false; }
  // Tokens that the request's bias raises: to be candidates however unlikely the drafter finds them.
  virtual std::span<const int32_t> raised() const { return {}; }
};

// What became of earlier proposals for a sequence: the judge of what is worth proposing.
class DraftJudge {
 public:
  virtual ~DraftJudge() = default;
  // How many drafts of `proposal` will be kept, as far as anybody knows: a function of committed text and of
  // drafts that were not sampled. Told of every proposal that cost nothing, also of those that are not handed
  // on: it is compared with the text as it comes.
  virtual double Weigh(const Proposal& proposal) = 0;
};

struct ProposeRequest {
  SequenceId sequence = 0;
  int max_tokens = 0;               // propose at most this many
  Proposal* proposal = nullptr;     // cleared by the caller
  DraftSampler* sampler = nullptr;  // null: greedy, each draft is the argmax (lowest id on ties)
  DraftJudge* judge = nullptr;      // null: what confidences promise
  bool free_only = false;           // only what needs no model: prompt lookup, a table
};

struct ObservedRows {
  SequenceId sequence = 0;
  int position = 0;               // of the first row
  std::span<const int32_t> next;  // [rows]: the token after each row
  int committed = 0;              // how many of these, the last ones, are new text; 0 inside a prompt
  const float* taps = nullptr;    // [rows, tap_layers().size() * d]
  size_t taps_stride = 0;
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  // The longest proposal it can make.
  virtual int max_tokens() const = 0;
  // What Observe wants to see of the target (Target::Forward's tap_layers). Constant.
  virtual std::span<const int> tap_layers() const { return {}; }
  // False when proposing costs nothing worth counting.
  virtual bool runs_model() const { return false; }
  // True when it is to be asked for what costs nothing first (free_only) and for the model's drafts then,
  // where these seem worth their price.
  virtual bool has_free_drafts() const { return !runs_model(); }
  // Bytes of weights, and of K/V and workspace.
  virtual size_t weight_bytes() const { return 0; }
  virtual size_t workspace_bytes() const { return 0; }

  virtual void Begin(SequenceId sequence, std::span<const int32_t> prompt) = 0;
  // One call drafts for all sequences of the step. All their rows but the newest token's have been observed.
  virtual void Propose(std::span<ProposeRequest> requests) = 0;
  virtual void Observe(std::span<const ObservedRows> rows) = 0;
  virtual void End(SequenceId sequence) = 0;

  // The K/V it keeps of a sequence's rows, in blocks of as many positions as the target's, so that a prefix
  // cache can keep it beside the target's; null: none. Row i may depend on the tokens up to i + 1. What was
  // observed may be written there as late as the next Propose or End.
  virtual KvTable* Context(SequenceId) { return nullptr; }
  // After Begin: Context holds rows 0 … rows - 1, and `next` is the token behind them.
  virtual void Resume(SequenceId, int /*rows*/, int32_t /*next*/) {}
};

}  // namespace dspark

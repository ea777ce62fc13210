// The engine: many sequences, one step at a time.
//
// A step plans rows, lets the drafter propose, trims proposals to what pays, runs one forward pass over
// everything, verifies, and commits. Plain decoding is a proposal of length 0; a prompt is the same path with
// more pending tokens. Sequences may join (Submit) and leave (Cancel, or at their end) between any two steps.
// One thread drives an engine.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/clock.h"
#include "core/function_ref.h"
#include "core/result.h"
#include "draft/drafter.h"
#include "engine/budget.h"
#include "engine/cost_table.h"
#include "engine/round_observer.h"
#include "engine/sequence.h"
#include "kv/prefix_cache.h"
#include "model/target.h"
#include "verify/accept.h"

namespace dspark {

struct EngineOptions {
  int max_sequences = 16;  // decoding at once; others wait
  int prefill_rows = 256;  // prompt rows of one step, so that decoding sequences are not held up
  int max_draft = 15;      // longest proposal that is verified
  int fixed_draft = -1;    // ≥ 0: verify proposals of this length whatever they cost (--draft-max)
  // > 0: verify the drafts before the first whose confidence falls below it, whatever they cost (the paper's
  // static threshold); with `threshold_cumulative` the product of confidences up to it.
  float threshold = 0;
  bool threshold_cumulative = false;
  bool zos = false;           // lengths by cost, their sum from confidences two steps old (§5.2)
  bool follow_costs = true;   // the cost table follows what steps really take
  bool accept_blocks = true;  // sampled drafts: block verification; false: token-wise rejection
  bool draft_forced = false;  // text that a request's constraint leaves no choice about is drafted
  // K/V of earlier text is kept while nobody needs the blocks: the pool is then this engine's alone.
  bool prefix_cache = false;
  ThreadPool* pool = nullptr;  // verifies the sequences of a step side by side; none: one after the other
  RoundObserver* observer = nullptr;  // is told of every round; outlives the engine
  const double* clock_ms = nullptr;   // what steps are timed by, in a simulation; none: the machine's clock

  // Lengths by cost: the cost table is needed, and drafters that do not pay are parked.
  bool Adaptive() const { return fixed_draft < 0 && !(threshold > 0); }
};

// What there is to do and to do it with, between two steps.
struct EngineLoad {
  int active = 0, waiting = 0;  // sequences
  int blocks = 0;               // of the KV pool: held by sequences, only by the prefix cache, or free
  int used_blocks = 0, cached_blocks = 0;
  int64_t preemptions = 0;  // since the start: sequences that gave their blocks back and are run again
};

class Engine {
 public:
  // `target`, `blocks`, `drafter` (may be null) and `tokenizer` (may be null: no text, no stop strings)
  // outlive the engine, as does options.pool. `costs` may be empty only when speculation is off or fixed.
  Engine(Target& target, BlockPool& blocks, Drafter* drafter, const Tokenizer* tokenizer, CostTable costs,
         const EngineOptions& options);
  ~Engine();

  // Error: an empty or too long prompt, a token outside the vocabulary, a bad parameter: which, and what is
  // allowed.
  Result<SequenceId> Submit(Request request);
  // Ends a sequence at the next step with FinishReason::kCancelled. Unknown ids are ignored.
  void Cancel(SequenceId id);
  bool Idle() const { return active_.empty() && waiting_.empty(); }

  // What the last step took; nothing where it ran nothing.
  struct StepCost {
    int rows = 0, prompt_rows = 0;       // of the pass; of these, rows of prompts
    int committing = 0;                  // sequences that get tokens
    int drafting = 0;                    // sequences that the drafter's model ran for
    double draft_ms = 0, verify_ms = 0;  // planning and proposing; target pass and accept rule
    double pass_ms = 0, drafter_ms = 0;  // the target's pass alone; what the drafter itself took
    double depth_ms = 0;                 // of pass_ms, by the cost table: deep contexts
  };
  StepCost last_step() const { return slots_.empty() ? StepCost{} : cost_; }

  // One step. The events stay valid until the next call; empty while only prompts are being read.
  std::span<const TokenEvent> Step();

  EngineLoad load() const;
  const CostTable& costs() const { return costs_; }
  const EngineOptions& options() const { return options_; }

 private:
  // A sequence's part in the present step.
  struct Slot {
    Sequence* sequence;
    int rows = 0;          // pending tokens run this step
    bool commits = false;  // runs the last pending token: tokens come out
    int first_row = 0;     // of the batch
    int first_logit = 0;   // the batch's logit row that belongs to the last pending token
    bool drafts = false;   // runs the drafter's model this step
    bool probes = false;   // though it does not seem to pay
    AcceptResult result{};
    bool broken = false;  // the model gave no distribution behind the accepted drafts: no next token
  };

  // Of one worker while it verifies.
  struct VerifyScratch {
    std::vector<DraftDistribution> q;
    std::vector<float> logits;  // [V]
    Distribution distribution;
  };

  // step.cc, in this order.
  void EndCancelled();
  void Admit();
  void Plan();
  void Propose();
  void Trim();
  ForwardOutput Forward();
  double DepthOfBatch() const;
  void Verify(const ForwardOutput& output);
  void Commit(const ForwardOutput& output);

  double Now() const { return options_.clock_ms ? *options_.clock_ms : NowMs(); }

  // admission.cc
  bool Speculates(const Sequence& sequence) const;
  void Restore(Sequence& sequence);
  void Forget(Sequence& sequence);
  bool Secure(Sequence& sequence, int rows);
  bool MakeRoom(const Sequence& sequence, int rows);
  void RemoveFinished();

  // propose.cc
  int ReplyRoom(const Slot& slot) const;
  int DraftRoom(const Slot& slot) const;
  void PreferForced();
  StepShape ShapeOfStep() const;
  void SetCandidates(FunctionRef<int(const Slot&)> length, FunctionRef<float(const Slot&, int k)> kept);
  void ProposeByModel();
  bool PrefersModel(const Slot& slot) const;
  bool ModelPays();
  void PlanDrafts();
  void ObserveDraftCost();
  void FilterDrafts();
  void TrimByCost();
  void FillCapacity(StepShape shape);
  void TrimToBlocks();
  int TrialLength(const Slot& slot, const StepShape& step);
  int Confident(const Sequence& sequence) const;
  void Learn(const Slot& slot, std::span<const int32_t> committed);

  void VerifySlot(Slot& slot, const ForwardOutput& output, VerifyScratch& scratch) const;
  void CommitSlot(Slot& slot, const ForwardOutput& output);
  void Publish();
  // Appends one token and its event. True when it ends the reply.
  bool CommitToken(Sequence& sequence, int32_t token, bool drafted, std::span<const float> logits);
  void Fail(Sequence& sequence);
  void AddLogprobs(int top, std::span<const float> logits, TokenEvent* event) const;
  void RecordStats(const Slot& slot, int committed);
  int BlocksFor(const Request& request) const;

  Target& target_;
  BlockPool& blocks_;
  Drafter* drafter_;
  const Tokenizer* tokenizer_;
  CostTable costs_;
  const EngineOptions options_;

  SequenceId next_id_ = 1;
  // Oldest first, both; all of waiting_ are younger than all of active_.
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> active_;
  struct Refused {
    SequenceId id = 0;
    int free = 0;  // blocks when there were too few for it
  } refused_;
  std::optional<PrefixCache> cache_;
  int64_t preemptions_ = 0;

  // Of the present step; kept between steps so that a step allocates nothing once warm.
  std::vector<Slot> slots_;
  std::vector<ProposeRequest> propose_;
  Proposal forced_;
  std::vector<float> conditional_;
  std::vector<size_t> candidate_ends_;  // in conditional_
  std::vector<VerifyCandidate> candidates_;
  std::vector<int32_t> batch_tokens_;
  std::vector<Segment> segments_;
  std::vector<VerifyScratch> verify_scratch_;  // by worker
  std::vector<ObservedRows> observed_;
  std::vector<TokenEvent> events_;
  Budget budget_;
  int capacity_[2] = {0, 0};  // drafts that this step may verify, and the next (zos)
  DraftCost draft_cost_;
  TrialCredit trial_credit_;
  AcceptanceEstimate learned_;  // from all sequences: what new ones begin with
  StepCost cost_;
  double step_start_ms_ = 0;
};

}  // namespace dspark

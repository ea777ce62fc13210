// Propose and trim: which sequences draft, how many drafts are verified, and what is learned from them.
#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace dspark {

// Drafts a sequence may still use: the last reply token is never a draft's successor, and positions end with
// the context. A prompt's last pass gives one token, and so does that of text that is run again: the drafter
// has not seen all of it.
int Engine::ReplyRoom(const Slot& slot) const {
  const Sequence& sequence = *slot.sequence;
  if (!sequence.request.speculate || slot.rows != 1 || sequence.Generated() == 0) return 0;
  const int reply = sequence.request.max_tokens - sequence.Generated() - 1;
  const int most = options_.fixed_draft >= 0 ? options_.fixed_draft : options_.max_draft;
  return std::max(0, std::min(reply, most));
}

// Of these, what the drafter can make.
int Engine::DraftRoom(const Slot& slot) const {
  return drafter_ ? std::min(ReplyRoom(slot), drafter_->max_tokens()) : 0;
}

// Where a request's constraint leaves no choice, the next tokens are known, and free. The drafter's model
// need not run where it would come to less.
void Engine::DraftForced() {
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    sequence.forced.Clear();
    if (!options_.draft_forced || !sequence.constraint) continue;
    const int room = ReplyRoom(slot);
    if (room > 0) sequence.forced.tokens = sequence.constraint->Forced(room);
    if (sequence.forced.size() == 0) continue;
    sequence.forced.match_length = Proposal::kForced;
    const AcceptanceEstimate& estimate = sequence.acceptance;
    slot.forced = estimate.Expected(Proposal::kForced, sequence.forced.size()) >=
                  estimate.Expected(/*match_length=*/0, DraftRoom(slot));
  }
}

// The longer one, as far as anybody knows, of two proposals that are functions of committed text. A drawn
// proposal stays whatever it is.
void Engine::PreferForced() {
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    Proposal &proposal = sequence.proposal, &forced = sequence.forced;
    if (forced.size() == 0 || proposal.sampled()) continue;
    const AcceptanceEstimate& estimate = sequence.acceptance;
    if (estimate.Expected(forced.match_length, forced.size()) >=
        estimate.Expected(proposal.match_length, proposal.size()))
      std::swap(proposal, forced);
  }
}

StepShape Engine::ShapeOfStep() const {
  int rows = 0, commits = 0;
  for (const Slot& slot : slots_) {
    rows += slot.rows;
    commits += slot.commits;
  }
  double depth_ms = 0;
  for (const Slot& slot : slots_) depth_ms += costs_.DepthMs(slot.rows, slot.sequence->computed);
  const TargetLimits& limits = target_.limits();
  const bool priced = commits > 0 && !costs_.points().empty();
  return {.base_rows = rows,
          .room = std::min(limits.max_rows - rows, limits.max_logit_rows - commits),
          .prompt_ms = priced ? costs_.Ms(rows) - costs_.Ms(commits) : 0,
          .depth_ms = depth_ms};
}

void Engine::Propose() {
  propose_.clear();
  DraftForced();
  const bool plan = drafter_ && drafter_->runs_model() && options_.Adaptive();
  if (plan) PlanDrafts();
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    sequence.proposal.Clear();
    const int room = DraftRoom(slot);
    if (room == 0) continue;
    const bool sample = sequence.sampler.Needed();
    if (sample) sequence.sampler.Begin(target_.isa(), sequence.tokens.size());
    propose_.push_back({.sequence = sequence.id,
                        .max_tokens = room,
                        .proposal = &sequence.proposal,
                        .sampler = sample ? &sequence.sampler : nullptr,
                        .free_only = slot.forced || (plan && !slot.drafts)});
  }
  const double start = Now();
  if (!propose_.empty()) drafter_->Propose(propose_);
  cost_.drafter_ms = Now() - start;
  for (const Slot& slot : slots_) slot.sequence->sampler.End();
  cost_.draft_ms = Now() - step_start_ms_;
  ObserveDraftCost(plan);
}

// One candidate for every slot that commits: `length` drafts, draft k + 1 kept with probability `kept`.
void Engine::SetCandidates(FunctionRef<int(const Slot&)> length,
                           FunctionRef<float(const Sequence&, int k)> kept) {
  conditional_.clear();
  candidate_ends_.clear();
  for (const Slot& slot : slots_) {
    if (!slot.commits) continue;
    const int n = length(slot);
    for (int k = 0; k < n; ++k) conditional_.push_back(kept(*slot.sequence, k));
    candidate_ends_.push_back(conditional_.size());
  }
  candidates_.clear();
  size_t begin = 0;
  for (const Slot& slot : slots_) {
    if (!slot.commits) continue;
    const size_t end = candidate_ends_[candidates_.size()];
    candidates_.push_back({.conditional = std::span(conditional_).subspan(begin, end - begin),
                           .row_ms = costs_.DepthMs(1, slot.sequence->computed)});
    begin = end;
  }
}

// Drafts are run for where, by what earlier ones came to, they would pay for themselves and for the pass that
// drafts them; and now and then where they would not, to see whether that still holds.
void Engine::PlanDrafts() {
  SetCandidates(
      [this](const Slot& slot) { return slot.forced ? 0 : DraftRoom(slot); },
      [](const Sequence& sequence, int k) { return sequence.acceptance.Conditional(/*match_length=*/0, k); });
  const auto drafting = std::ranges::count_if(
      candidates_, [](const VerifyCandidate& candidate) { return !candidate.conditional.empty(); });
  StepShape shape = ShapeOfStep();
  // Before a drafter's price is known it is taken for what a small one costs: a wrong first draft parks it.
  constexpr double kUsualShare = 0.3;
  const double price = draft_cost_.Ms(int(drafting));
  shape.draft_ms = price > 0 ? price : kUsualShare * costs_.Ms(1);
  budget_.Choose(costs_, shape, candidates_);
  auto candidate = candidates_.begin();
  for (Slot& slot : slots_) {
    if (!slot.commits) continue;
    const VerifyCandidate& planned = *candidate++;
    if (planned.conditional.empty()) continue;
    const bool pays = planned.length > 0;
    DraftBackoff& backoff = slot.sequence->backoff;
    if (pays) backoff.Reset();
    slot.probes = !pays && backoff.Due() && trial_credit_.Spend(draft_cost_.Ms(1) + costs_.Ms(1));
    if (slot.probes) backoff.Tried();
    slot.drafts = pays || slot.probes;
  }
}

void Engine::ObserveDraftCost(bool learn) {
  cost_.drafting = 0;
  if (!drafter_ || !drafter_->runs_model()) return;
  for (const ProposeRequest& request : propose_)
    cost_.drafting += !request.free_only && request.proposal->match_length == 0;
  if (!learn || cost_.drafting == 0) return;
  // A sequence that is tried after a while has its backlog read first, its prompt perhaps: that is part of
  // the price of trying, though not of the next draft's.
  if (std::ranges::none_of(slots_, [](const Slot& slot) { return slot.drafts && !slot.probes; })) {
    const auto tries = std::ranges::count_if(slots_, &Slot::probes);
    trial_credit_.Charge(std::max(0.0, cost_.drafter_ms - double(tries) * draft_cost_.Ms(1)));
  }
  draft_cost_.Observe(cost_.drafting, cost_.draft_ms);
}

// Cuts every proposal to the length that is worth it and that the pass has room for. What is cut stays under
// observation.
void Engine::Trim() {
  FilterDrafts();
  PreferForced();
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    if (!sequence.shadow.active() && !sequence.proposal.sampled()) sequence.shadow.Start(sequence.proposal);
    if (options_.observer) sequence.proposed_confidence = sequence.proposal.confidence;
  }
  if (options_.Adaptive()) {
    TrimByCost();
  } else {
    int room = ShapeOfStep().room;
    for (Slot& slot : slots_) {
      Proposal& proposal = slot.sequence->proposal;
      proposal.Trim(std::min(room, options_.threshold > 0 ? Confident(*slot.sequence) : proposal.size()));
      room -= proposal.size();
    }
  }
  TrimToBlocks();
}

// Drafts that were not drawn end before the first that the request's constraint forbids: a function of
// committed text. Drawn ones stay, for the choice would depend on the draw; the sampler has filtered them.
void Engine::FilterDrafts() {
  for (Slot& slot : slots_) {
    Constraint* constraint = slot.sequence->constraint.get();
    Proposal& proposal = slot.sequence->proposal;
    if (!constraint || proposal.sampled()) continue;
    int allowed = 0;
    for (; allowed < proposal.size() && constraint->Allows(proposal.tokens[size_t(allowed)]); ++allowed)
      constraint->Push(proposal.tokens[size_t(allowed)]);
    for (int k = 0; k < allowed; ++k) constraint->Pop();
    proposal.Trim(allowed);
  }
}

// Nobody is thrown out for drafts: they end where the blocks do.
void Engine::TrimToBlocks() {
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    const int rows = slot.rows + sequence.proposal.size();
    if (sequence.proposal.size() == 0 || sequence.kv.Reserve(sequence.computed + rows)) continue;
    if (MakeRoom(sequence, rows) && sequence.kv.Reserve(sequence.computed + rows)) continue;
    sequence.proposal.Trim(sequence.kv.capacity() - sequence.computed - slot.rows);
  }
}

// P(draft k + 1 kept | those before are), as far as anybody knows: functions of what was drafted before it.
float Engine::Conditional(const Sequence& sequence, int k) const {
  const Proposal& proposal = sequence.proposal;
  if (k < int(proposal.confidence.size())) return sequence.acceptance.Corrected(k, proposal.confidence[k]);
  return sequence.acceptance.Conditional(proposal.match_length, k);
}

// Drafts before the first whose confidence, by itself or with all before it, falls below the threshold.
int Engine::Confident(const Sequence& sequence) const {
  const Proposal& proposal = sequence.proposal;
  float cumulative = 1;
  for (int k = 0; k < proposal.size(); ++k) {
    const float c = k < int(proposal.confidence.size()) ? proposal.confidence[k] : Conditional(sequence, k);
    cumulative *= c;
    if ((options_.threshold_cumulative ? cumulative : c) < options_.threshold) return k;
  }
  return proposal.size();
}

// Drafts that are verified though it does not seem to pay. Only verification tells how a sampled draft fares;
// and costs measured in a bad moment are found out by a few rows now and then.
int Engine::TrialLength(const Slot& slot) {
  constexpr int kTrial = 3;
  Sequence& sequence = *slot.sequence;
  if (sequence.proposal.size() == 0) return 0;
  if (sequence.proposal.sampled()) return slot.probes ? 1 : 0;
  const int rows = std::min(kTrial, sequence.proposal.size());
  const double price = costs_.Ms(1 + rows) - costs_.Ms(1);
  if (!sequence.trial_backoff.Due() || !trial_credit_.Spend(price)) return 0;
  sequence.trial_backoff.Tried();
  return rows;
}

void Engine::TrimByCost() {
  SetCandidates([](const Slot& slot) { return slot.sequence->proposal.size(); },
                [this](const Sequence& sequence, int k) { return Conditional(sequence, k); });
  if (conditional_.empty()) return;
  StepShape shape = ShapeOfStep();
  for (const Slot& slot : slots_) {
    const Proposal& proposal = slot.sequence->proposal;
    shape.stop_at_first_decline |= proposal.sampled() && !proposal.confidence.empty();
  }
  if (options_.zos) {
    FillCapacity(shape);
  } else {
    budget_.Choose(costs_, shape, candidates_);
  }
  auto candidate = candidates_.begin();
  int spare = shape.room;
  for (const VerifyCandidate& c : candidates_) spare -= c.length;
  for (Slot& slot : slots_) {
    if (!slot.commits) continue;
    int length = (candidate++)->length;
    if (length > 0) slot.sequence->trial_backoff.Reset();
    if (length == 0 && spare > 0) {
      length = std::min(spare, TrialLength(slot));
      spare -= length;
    }
    slot.sequence->proposal.Trim(length);
  }
}

// The paper's asynchronous form (§5.2): the number of drafts comes from confidences two steps old, whatever
// these drafts are, so the search for it may look at all of them.
void Engine::FillCapacity(StepShape shape) {
  shape.stop_at_first_decline = false;
  budget_.Choose(costs_, shape, candidates_);
  int now = 0;
  for (const VerifyCandidate& c : candidates_) now += c.length;
  budget_.Fill(capacity_[0], shape, candidates_);
  capacity_[0] = std::exchange(capacity_[1], now);
}

// What became of drafts, for the planner. A draft that was not sampled counts by the text as it came,
// verified or not.
void Engine::Learn(const Slot& slot, std::span<const int32_t> committed) {
  Sequence& sequence = *slot.sequence;
  const Proposal& proposal = sequence.proposal;
  const auto record = [&](int match_length, int kept, int examined, std::span<const float> confidence) {
    for (AcceptanceEstimate* estimate : {&sequence.acceptance, &learned_})
      estimate->Record(match_length, kept, examined, confidence);
  };
  if (proposal.sampled()) {
    const int kept = slot.result.accepted;
    record(proposal.match_length, kept, std::min(kept + 1, proposal.size()), proposal.confidence);
  }
  if (const auto seen = sequence.shadow.Compare(committed)) {
    record(seen->match_length, seen->kept, seen->examined, seen->confidence);
  }
}

}  // namespace dspark

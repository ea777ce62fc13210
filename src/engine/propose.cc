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
                        .judge = &sequence.watch,
                        .free_only = drafter_->runs_model()});
  }
  cost_.drafting = 0;
  const double start = Now();
  if (!propose_.empty() && drafter_->has_free_drafts()) drafter_->Propose(propose_);
  PreferForced();
  if (!propose_.empty() && drafter_->runs_model()) ProposeByModel();
  cost_.drafter_ms = Now() - start;
  for (const Slot& slot : slots_) slot.sequence->sampler.End();
  cost_.draft_ms = Now() - step_start_ms_;
  ObserveDraftCost();
}

// Where a request's constraint leaves no choice, the next tokens are known, and free: they take the place of
// what is at hand, unless more of that should be kept. Drafts that were drawn stay, for the choice would
// depend on the draw.
void Engine::PreferForced() {
  if (!options_.draft_forced) return;
  // Nothing else may be written: only how it is cut into tokens is guessed, and a text goes on as it was cut.
  constexpr float kFirst = 0.9f, kNext = 0.99f;
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    const int room = ReplyRoom(slot);
    if (!sequence.constraint || room == 0 || sequence.proposal.sampled()) continue;
    forced_.Clear();
    forced_.origin = DraftOrigin::kForced;
    forced_.tokens = sequence.constraint->Forced(room);
    if (forced_.size() == 0) continue;
    forced_.confidence.assign(forced_.tokens.size(), kNext);
    forced_.confidence[0] = kFirst;
    if (sequence.watch.Weigh(forced_) >= sequence.watch.acceptance.Kept(sequence.proposal))
      std::swap(sequence.proposal, forced_);
  }
}

// Where the model's drafts are wanted, they take the place of those that were free.
void Engine::ProposeByModel() {
  for (Slot& slot : slots_) slot.drafts = PrefersModel(slot);
  if (options_.Adaptive()) PlanDrafts();
  auto request = propose_.begin();
  for (const Slot& slot : slots_) {
    if (request == propose_.end() || request->sequence != slot.sequence->id) continue;
    request->free_only = !slot.drafts;
    if (slot.drafts) request->proposal->Clear();
    ++request;
  }
  std::erase_if(propose_, [](const ProposeRequest& r) { return r.free_only; });
  if (!propose_.empty()) drafter_->Propose(propose_);
  for (const ProposeRequest& r : propose_) cost_.drafting += r.proposal->match_length == 0;
}

// One candidate for every slot that commits: `length` drafts, draft k + 1 kept with probability `kept`.
void Engine::SetCandidates(FunctionRef<int(const Slot&)> length,
                           FunctionRef<float(const Slot&, int k)> kept) {
  conditional_.clear();
  candidate_ends_.clear();
  for (const Slot& slot : slots_) {
    if (!slot.commits) continue;
    const int n = length(slot);
    for (int k = 0; k < n; ++k) conditional_.push_back(kept(slot, k));
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

// Whether more of the model's drafts than of those at hand should be kept. Nobody knows before it was tried,
// but little more than forced text can be hoped for.
bool Engine::PrefersModel(const Slot& slot) const {
  const int room = DraftRoom(slot);
  if (room == 0) return false;
  const AcceptanceEstimate& acceptance = slot.sequence->watch.acceptance;
  const Proposal& at_hand = slot.sequence->proposal;
  return acceptance.KnowsModel() ? acceptance.KeptOfModel(room) > acceptance.Kept(at_hand)
                                 : at_hand.origin != DraftOrigin::kForced;
}

// Whether drafts of the model, where they are preferred, give more tokens in the time than those at hand.
// Leaves in candidates_ how many of either would be verified.
bool Engine::ModelPays() {
  const auto kept = [](const Slot& slot, int k) {
    const AcceptanceEstimate& acceptance = slot.sequence->watch.acceptance;
    return slot.drafts ? acceptance.Conditional(/*match_length=*/0, k)
                       : acceptance.Kept(slot.sequence->proposal, k);
  };
  StepShape shape = ShapeOfStep();
  SetCandidates([](const Slot& slot) { return slot.sequence->proposal.size(); },
                [](const Slot& slot, int k) {
                  return slot.sequence->watch.acceptance.Kept(slot.sequence->proposal, k);
                });
  const double free = budget_.Choose(costs_, shape, candidates_);
  SetCandidates(
      [this](const Slot& slot) { return slot.drafts ? DraftRoom(slot) : slot.sequence->proposal.size(); },
      kept);
  // Before a drafter's price is known it is taken for what a small one costs: a wrong first draft parks it.
  constexpr double kUsualShare = 0.3;
  const double price = draft_cost_.Ms(int(std::ranges::count_if(slots_, &Slot::drafts)));
  shape.draft_ms = price > 0 ? price : kUsualShare * costs_.Ms(1);
  const double rate = budget_.Choose(costs_, shape, candidates_);
  return rate > free || !learned_.KnowsModel();
}

// Drafts are run for where, by what earlier ones came to, they would pay for themselves and for the pass that
// drafts them; and now and then where they would not, to see whether that still holds.
void Engine::PlanDrafts() {
  const bool better = ModelPays();
  auto candidate = candidates_.begin();
  for (Slot& slot : slots_) {
    if (!slot.commits) continue;
    const VerifyCandidate& planned = *candidate++;
    if (DraftRoom(slot) == 0) continue;
    const bool pays = better && slot.drafts && planned.length > 0;
    DraftBackoff& backoff = slot.sequence->backoff;
    if (pays) backoff.Reset();
    slot.probes = !pays && backoff.Due() && trial_credit_.Spend(draft_cost_.Ms(1) + costs_.Ms(1));
    if (slot.probes) backoff.Tried();
    slot.drafts = pays || slot.probes;
  }
}

void Engine::ObserveDraftCost() {
  if (cost_.drafting == 0 || !options_.Adaptive()) return;
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
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    if (!sequence.proposal.sampled()) sequence.watch.Watch(sequence.proposal);
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

// Drafts before the first whose confidence, by itself or with all before it, falls below the threshold.
int Engine::Confident(const Sequence& sequence) const {
  const Proposal& proposal = sequence.proposal;
  float cumulative = 1;
  for (int k = 0; k < proposal.size(); ++k) {
    const float c = k < int(proposal.confidence.size()) ? proposal.confidence[k]
                                                        : sequence.watch.acceptance.Kept(proposal, k);
    cumulative *= c;
    if ((options_.threshold_cumulative ? cumulative : c) < options_.threshold) return k;
  }
  return proposal.size();
}

// Drafts that are verified though it does not seem to pay. Only verification tells how a sampled draft fares;
// and costs measured in a bad moment are found out by a few rows now and then.
int Engine::TrialLength(const Slot& slot, const StepShape& step) {
  constexpr int kTrial = 3;
  Sequence& sequence = *slot.sequence;
  if (sequence.proposal.size() == 0) return 0;
  if (sequence.proposal.sampled()) return slot.probes ? 1 : 0;
  const int rows = std::min(kTrial, sequence.proposal.size());
  const double price = costs_.Ms(step.base_rows + rows) - costs_.Ms(step.base_rows);
  if (!sequence.trial_backoff.Due() || !trial_credit_.Spend(price)) return 0;
  sequence.trial_backoff.Tried();
  return rows;
}

void Engine::TrimByCost() {
  SetCandidates([](const Slot& slot) { return slot.sequence->proposal.size(); },
                [](const Slot& slot, int k) {
                  return slot.sequence->watch.acceptance.Kept(slot.sequence->proposal, k);
                });
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
      length = std::min(spare, TrialLength(slot, shape));
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
  const auto record = [&](const DraftOutcome& outcome) {
    for (AcceptanceEstimate* estimate : {&sequence.watch.acceptance, &learned_}) estimate->Record(outcome);
  };
  if (proposal.sampled()) {
    const int kept = slot.result.accepted;
    record({proposal.origin, proposal.match_length, kept, std::min(kept + 1, proposal.size()),
            proposal.confidence});
  }
  sequence.watch.Compare(committed, record);
}

}  // namespace dspark

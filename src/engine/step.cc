// One step of the engine, in the words of the paper: plan, propose, trim, forward, verify, commit.
#include <algorithm>
#include <atomic>

#include "engine/engine.h"
#include "kernels/ops.h"

namespace dspark {

std::span<const TokenEvent> Engine::Step() {
  events_.clear();
  step_start_ms_ = Now();
  EndCancelled();
  Admit();
  Plan();
  if (!slots_.empty()) {
    Propose();
    Trim();
    const ForwardOutput output = Forward();
    Verify(output);
    Commit(output);
  }
  trial_credit_.Earn(Now() - step_start_ms_);
  RemoveFinished();
  return events_;
}

// Which sequences run, and how many of their pending tokens: those that decode come first, prompts share what
// is left. Oldest first, so that who has to give blocks up is not planned yet.
void Engine::Plan() {
  slots_.clear();
  int room = target_.limits().max_rows, prompt_room = options_.prefill_rows;
  for (const bool decoding : {true, false}) {
    for (auto& sequence : active_) {
      if ((sequence->Pending() == 1) != decoding) continue;
      sequence->rows = std::min({sequence->Pending(), room, decoding ? 1 : prompt_room});
      room -= sequence->rows;
      if (!decoding) prompt_room -= sequence->rows;
    }
  }
  for (size_t i = 0; i < active_.size(); ++i) {
    Sequence& sequence = *active_[i];
    if (sequence.rows == 0 || !Secure(sequence, sequence.rows)) continue;
    slots_.push_back(
        {.sequence = &sequence, .rows = sequence.rows, .commits = sequence.rows == sequence.Pending()});
  }
}

// One pass over the pending tokens and the drafts behind them.
ForwardOutput Engine::Forward() {
  batch_tokens_.clear();
  for (Slot& slot : slots_) {
    const Sequence& sequence = *slot.sequence;
    const auto pending = sequence.tokens.begin() + sequence.computed;
    batch_tokens_.insert(batch_tokens_.end(), pending, pending + slot.rows);
    batch_tokens_.insert(batch_tokens_.end(), sequence.proposal.tokens.begin(),
                         sequence.proposal.tokens.end());
  }
  segments_.clear();
  size_t offset = 0;
  int logit_rows = 0;
  for (Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    const int rows = slot.rows + sequence.proposal.size();
    segments_.push_back({.tokens = std::span(batch_tokens_).subspan(offset, rows),
                         .position = sequence.computed,
                         .kv = &sequence.kv,
                         .logits_from = slot.commits ? slot.rows - 1 : rows});
    slot.first_row = int(offset);
    slot.first_logit = logit_rows;
    logit_rows += slot.commits ? 1 + sequence.proposal.size() : 0;
    offset += rows;
  }
  const double start = Now();
  const ForwardOutput output =
      target_.Forward(segments_, drafter_ ? drafter_->tap_layers() : std::span<const int>());
  cost_.pass_ms = cost_.verify_ms = Now() - start;
  cost_.rows = int(batch_tokens_.size());
  cost_.committing = cost_.prompt_rows = 0;
  for (const Slot& slot : slots_) {
    cost_.committing += slot.commits;
    cost_.prompt_rows += slot.rows > 1 || !slot.commits ? slot.rows - slot.commits : 0;
  }
  cost_.depth_ms = DepthOfBatch();
  // Only steps of the shape that was measured: one pending token a sequence, and its drafts.
  const bool decoding =
      std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.rows == 1; });
  if (options_.follow_costs && decoding && !costs_.points().empty())
    costs_.Observe(cost_.rows, std::max(cost_.pass_ms - cost_.depth_ms, 0.1 * cost_.pass_ms));
  return output;
}

double Engine::DepthOfBatch() const {
  double ms = 0;
  for (const Segment& segment : segments_) ms += costs_.DepthMs(int(segment.tokens.size()), segment.position);
  return ms;
}

void Engine::Verify(const ForwardOutput& output) {
  const double start = Now();
  // A slot touches its own sequence and logits only. Workers take the next one when they are done: a row that
  // is sampled from the whole vocabulary costs many times a greedy one.
  std::atomic<size_t> next{0};
  const auto verify = [&](VerifyScratch& scratch) {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < slots_.size();) {
      if (slots_[i].commits) VerifySlot(slots_[i], output, scratch);
    }
  };
  if (options_.pool && std::ranges::count_if(slots_, &Slot::commits) > 1) {
    options_.pool->Run([&](const Worker& worker) { verify(verify_scratch_[size_t(worker.index())]); });
  } else {
    verify(verify_scratch_.front());
  }
  cost_.verify_ms += Now() - start;
}

void Engine::VerifySlot(Slot& slot, const ForwardOutput& output, VerifyScratch& scratch) const {
  Sequence& sequence = *slot.sequence;
  const Proposal& proposal = sequence.proposal;
  scratch.q.clear();
  for (int k = 0; proposal.sampled() && k < proposal.size(); ++k)
    scratch.q.push_back({proposal.Q(k).ids, proposal.Q(k).probs});
  int pushed = 0, broken = -1;  // drafts into history and constraint; the first row without a distribution
  // Row k's served distribution, made only if the accept rule gets that far. Its penalties see drafts 1 … k.
  const auto row = [&](int k) -> const Distribution& {
    float* logits = output.logits + size_t(slot.first_logit + k) * output.logits_stride;
    std::span<float> row_logits(logits, target_.config().vocab);
    if (sequence.request.top_logprobs >= 0) {  // log-probabilities are the model's own: keep the raw row
      std::copy(row_logits.begin(), row_logits.end(), scratch.logits.begin());
      row_logits = scratch.logits;
    }
    for (; pushed < k; ++pushed) {
      if (sequence.history) sequence.history->Push(proposal.tokens[pushed]);
      if (sequence.constraint) sequence.constraint->Push(proposal.tokens[pushed]);
    }
    if (sequence.constraint) sequence.constraint->Mask(row_logits);
    const bool sound =
        ServedDistribution(target_.isa(), row_logits, sequence.request.sampling,
                           sequence.history ? &*sequence.history : nullptr, &scratch.distribution);
    if (!sound && broken < 0) broken = k;
    return scratch.distribution;
  };
  const AcceptInput input{.drafts = proposal.tokens,
                          .q = scratch.q,
                          .seed = sequence.request.seed,
                          .position = sequence.tokens.size()};
  // A one-hot draft is kept iff plain decoding would draw it: the reply is then plain decoding's, token for
  // token.
  slot.result = !proposal.sampled()      ? AcceptByMatch(input, row)
                : options_.accept_blocks ? AcceptByBlock(input, row)
                                         : AcceptByRejection(input, row);
  while (pushed-- > 0) {
    if (sequence.history) sequence.history->Pop(proposal.tokens[pushed]);
    if (sequence.constraint) sequence.constraint->Pop();
  }
  slot.broken = broken >= 0;
  if (slot.broken) slot.result.accepted = std::min(slot.result.accepted, broken);
}

void Engine::Commit(const ForwardOutput& output) {
  observed_.clear();
  for (Slot& slot : slots_) {
    const int position = slot.sequence->computed;
    CommitSlot(slot, output);
    const Sequence& sequence = *slot.sequence;
    if (!drafter_ || !sequence.request.speculate || sequence.finish != FinishReason::kNone) continue;
    const int rows = sequence.computed - position;
    observed_.push_back({.sequence = sequence.id,
                         .position = position,
                         .next = std::span(sequence.tokens).subspan(size_t(position) + 1, size_t(rows)),
                         .committed = slot.commits ? slot.result.accepted + 1 : 0,
                         .taps = output.taps + size_t(slot.first_row) * output.taps_stride,
                         .taps_stride = output.taps_stride});
  }
  if (!observed_.empty()) {
    const double start = Now();
    drafter_->Observe(observed_);
    cost_.drafter_ms += Now() - start;
  }
  if (cache_) Publish();
}

// Full blocks become known to the prefix cache, once the drafter has seen their rows too.
void Engine::Publish() {
  for (const Slot& slot : slots_) {
    Sequence& sequence = *slot.sequence;
    const bool ended = sequence.finish != FinishReason::kNone;
    KvTable* context = Speculates(sequence) && !ended ? drafter_->Context(sequence.id) : nullptr;
    cache_->Publish(sequence.tokens, sequence.computed, &sequence.kv, context, &sequence.place);
  }
}

void Engine::CommitSlot(Slot& slot, const ForwardOutput& output) {
  Sequence& sequence = *slot.sequence;
  sequence.computed += slot.rows;
  if (!slot.commits) {
    sequence.stats.prompt_ms += Now() - step_start_ms_;
    return;
  }
  const size_t before = sequence.tokens.size();
  bool ended = false;
  for (int k = 0; k < slot.result.accepted + !slot.broken && !ended; ++k) {
    const bool drafted = k < slot.result.accepted;
    const float* logits = output.logits + size_t(slot.first_logit + k) * output.logits_stride;
    ended = CommitToken(sequence, drafted ? sequence.proposal.tokens[k] : slot.result.next, drafted,
                        {logits, size_t(target_.config().vocab)});
  }
  if (slot.broken && !ended) {
    Fail(sequence);
    ended = true;
  }
  const int committed = int(sequence.tokens.size() - before);
  sequence.computed += std::min(slot.result.accepted, committed);
  sequence.kv.Truncate(sequence.computed);
  Learn(slot, std::span(sequence.tokens).subspan(before));
  RecordStats(slot, committed);
  if (ended) events_.back().stats = std::make_shared<SequenceStats>(sequence.stats);
}

bool Engine::CommitToken(Sequence& sequence, int32_t token, bool drafted, std::span<const float> logits) {
  const Request& request = sequence.request;
  const auto& eos = target_.config().eos;
  sequence.tokens.push_back(token);
  if (sequence.history) sequence.history->Push(token);
  if (sequence.constraint) sequence.constraint->Push(token);

  TokenEvent event{.sequence = sequence.id, .token = token, .drafted = drafted};
  if (request.top_logprobs >= 0) AddLogprobs(request.top_logprobs, logits, &event);
  bool stopped = (!request.ignore_eos && std::count(eos.begin(), eos.end(), token) > 0) ||
                 std::count(request.stop_tokens.begin(), request.stop_tokens.end(), token) > 0;
  if (stopped) {
    event.text = sequence.text.Finish();
  } else {
    event.text = sequence.text.Add(token, &stopped);
    if (!stopped && sequence.constraint && sequence.constraint->Complete()) {
      stopped = true;
      event.text += sequence.text.Finish();
    }
  }
  if (stopped) {
    sequence.finish = FinishReason::kStop;
  } else if (sequence.Generated() >= request.max_tokens) {
    sequence.finish = FinishReason::kLength;
    event.text += sequence.text.Finish();
  }
  event.finish = sequence.finish;
  events_.push_back(std::move(event));
  return sequence.finish != FinishReason::kNone;
}

void Engine::Fail(Sequence& sequence) {
  sequence.finish = FinishReason::kError;
  events_.push_back({.sequence = sequence.id,
                     .text = sequence.text.Finish(),
                     .finish = sequence.finish,
                     .error = fmt::format("the logits at position {} are not finite: the model's weights are "
                                          "damaged or overflow; get the file again, or try another",
                                          sequence.tokens.size())});
}

void Engine::AddLogprobs(int top, std::span<const float> logits, TokenEvent* event) const {
  const float log_sum = LogSumExp(target_.isa(), logits);
  event->logprob = {event->token, logits[event->token] - log_sum};
  if (top == 0) return;
  std::vector<int32_t> ids(top);
  std::vector<float> values(top);
  TopK(target_.isa(), logits, top, ids.data(), values.data());
  for (int i = 0; i < top; ++i) event->top.push_back({ids[i], values[i] - log_sum});
}

// `committed` tokens came out of the round; fewer than accepted + 1 where the reply ended inside the block.
void Engine::RecordStats(const Slot& slot, int committed) {
  SequenceStats& stats = slot.sequence->stats;
  stats.completion_tokens += committed;
  if (stats.completion_tokens == committed) {  // the prompt's last pass
    stats.prompt_ms += Now() - step_start_ms_;
    return;
  }
  const int verified = slot.sequence->proposal.size();
  const int kept = std::min(slot.result.accepted, committed);
  stats.rounds += 1;
  stats.committed += committed;
  stats.drafted += verified;
  stats.accepted += kept;
  stats.verified_at.resize(std::max(stats.verified_at.size(), size_t(verified)));
  stats.reached_at.resize(stats.verified_at.size());
  stats.accepted_at.resize(stats.verified_at.size());
  for (int k = 0; k < verified; ++k) ++stats.verified_at[k];
  for (int k = 0; k < std::min(kept + 1, verified); ++k) ++stats.reached_at[k];
  for (int k = 0; k < kept; ++k) ++stats.accepted_at[k];
  stats.draft_ms += cost_.draft_ms;
  stats.verify_ms += cost_.verify_ms;
  stats.decode_ms += Now() - step_start_ms_;
  if (options_.observer) {
    options_.observer->OnRound({.sequence = slot.sequence->id,
                                .drafted = committed > kept ? verified : kept,
                                .accepted = kept,
                                .committed = committed,
                                .origin = slot.sequence->proposal.origin,
                                .match_length = slot.sequence->proposal.match_length,
                                .confidence = slot.sequence->proposed_confidence});
  }
}

}  // namespace dspark

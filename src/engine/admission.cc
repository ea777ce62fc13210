// Who runs: waiting sequences come in, cancelled and finished ones leave, and where KV blocks run out the
// youngest give theirs back and are run again later. What is run again comes out the same: random numbers are
// keyed by position, and a row's bits depend on nothing but the tokens before it.
#include <algorithm>

#include "engine/engine.h"

namespace dspark {

bool Engine::Speculates(const Sequence& sequence) const { return drafter_ && sequence.request.speculate; }

// First come, first served. A sequence needs blocks for its tokens so far; one more for each that decodes is
// kept in hand, or it would soon be thrown out again.
void Engine::Admit() {
  while (!waiting_.empty() && int(active_.size()) < options_.max_sequences) {
    Sequence& next = *waiting_.front();
    const KvLayout& layout = blocks_.layout();
    const auto free = [this] { return blocks_.free_blocks() + (cache_ ? cache_->idle_blocks() : 0); };
    // Looking again costs time, and nothing has changed.
    if (refused_.id == next.id && free() <= refused_.free && !active_.empty()) return;
    refused_ = {next.id, free()};
    if (Speculates(next)) drafter_->Begin(next.id, next.tokens);
    Restore(next);
    const int held = next.kv.capacity() / layout.block_tokens;
    const int needed = layout.BlocksFor(int(next.tokens.size())) - held + int(active_.size());
    if (needed > free() && !active_.empty()) return Forget(next);
    next.watch.acceptance.StartFrom(learned_);
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// What earlier text left of the sequence's beginning: the target's K/V, and the drafter's.
void Engine::Restore(Sequence& sequence) {
  if (!cache_) return;
  KvTable* context = Speculates(sequence) ? drafter_->Context(sequence.id) : nullptr;
  // A drafter that reads taps and keeps nothing for the cache has to see every row.
  if (Speculates(sequence) && !context && !drafter_->tap_layers().empty()) return;
  const PrefixCache::Found found = cache_->Adopt(sequence.tokens, &sequence.kv, context);
  sequence.computed = found.rows;
  sequence.place = found.place;
  if (sequence.stats.prompt_ms == 0)  // not run again
    sequence.stats.cached_tokens = std::min(found.rows, int(sequence.request.prompt.size()));
  if (context && found.rows > 0)
    drafter_->Resume(sequence.id, found.rows, sequence.tokens[size_t(found.rows)]);
}

// Takes back its blocks and its place at the drafter.
void Engine::Forget(Sequence& sequence) {
  sequence.kv.Truncate(0);
  sequence.computed = 0;
  sequence.place = {};
  if (Speculates(sequence)) drafter_->End(sequence.id);
}

// K/V for the rows it runs this step. Idle cached blocks make way first, then the youngest sequences. False:
// it was the youngest itself.
bool Engine::Secure(Sequence& sequence, int rows) {
  while (!sequence.kv.Reserve(sequence.computed + rows)) {
    if (MakeRoom(sequence, rows)) continue;
    Sequence& youngest = *active_.back();
    Forget(youngest);
    youngest.proposal.Clear();
    youngest.watch.Stop();
    ++preemptions_;
    waiting_.push_front(std::move(active_.back()));
    active_.pop_back();
    if (&youngest == &sequence) return false;
  }
  return true;
}

bool Engine::MakeRoom(const Sequence& sequence, int rows) {
  const KvLayout& layout = blocks_.layout();
  return cache_ && cache_->MakeRoom(layout.BlocksFor(sequence.computed + rows) -
                                    sequence.kv.capacity() / layout.block_tokens);
}

// Says so to the callers, and takes them out of the queues.
void Engine::EndCancelled() {
  const auto end = [this](auto& queue) {
    for (auto& sequence : queue) {
      if (sequence->finish != FinishReason::kCancelled) continue;
      events_.push_back({.sequence = sequence->id,
                         .text = sequence->text.Finish(),
                         .finish = sequence->finish,
                         .stats = std::make_shared<SequenceStats>(sequence->stats)});
    }
  };
  end(waiting_);
  end(active_);
  std::erase_if(waiting_, [](const auto& sequence) { return sequence->finish != FinishReason::kNone; });
  RemoveFinished();
}

void Engine::RemoveFinished() {
  std::erase_if(active_, [this](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->finish == FinishReason::kNone) return false;
    if (Speculates(*sequence)) drafter_->End(sequence->id);
    return true;
  });
}

EngineLoad Engine::load() const {
  int cached = cache_ ? cache_->idle_blocks() : 0;
  return {.active = int(active_.size()),
          .waiting = int(waiting_.size()),
          .blocks = blocks_.blocks(),
          .used_blocks = blocks_.blocks() - blocks_.free_blocks() - cached,
          .cached_blocks = cached,
          .preemptions = preemptions_};
}

}  // namespace dspark

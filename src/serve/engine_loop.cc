#include "serve/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/clock.h"

namespace dspark {
namespace {

constexpr size_t kEndsKept = 32;  // that Retry-After is computed from
constexpr int kLongestRetry = 60;

}  // namespace

EngineLoop::EngineLoop(Engine& engine, const LoopOptions& options, RoundTally* tally, LoadObserver* observer)
    : engine_(engine),
      limit_(engine.options().max_sequences + options.queue),
      tally_(tally),
      observer_(observer),
      thread_([this] { Run(); }) {}

EngineLoop::~EngineLoop() {
  Drain(0);
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  mail_.notify_one();
  thread_.join();
}

EngineLoop::Outcome EngineLoop::Submit(std::vector<Request> requests) {
  const int wanted = int(requests.size());
  DSPARK_CHECK_GE(wanted, 1);
  auto stream = std::make_shared<ReplyStream>(wanted);
  {
    const std::scoped_lock lock(mutex_);
    if (draining_ || live_ + wanted > limit_) {
      return Refusal{
          .draining = draining_, .retry_after_s = RetryAfter(wanted), .live = live_, .limit = limit_};
    }
    live_ += wanted;
    calls_.push_back({stream, std::move(requests), NowMs()});
  }
  mail_.notify_one();
  return stream;
}

void EngineLoop::Cancel(const std::shared_ptr<ReplyStream>& stream) {
  {
    const std::scoped_lock lock(mutex_);
    cancels_.push_back(stream);
  }
  mail_.notify_one();
}

void EngineLoop::Drain(double limit_ms) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto idle = [this] { return live_ == 0; };
  if (ended_.wait_for(lock, std::chrono::duration<double, std::milli>(limit_ms), idle)) return;
  cancel_all_ = true;
  mail_.notify_one();
  ended_.wait(lock, idle);
}

bool EngineLoop::draining() const {
  const std::scoped_lock lock(mutex_);
  return draining_;
}

int EngineLoop::live() const {
  const std::scoped_lock lock(mutex_);
  return live_;
}

// Places come free at the rate at which sequences have ended of late.
int EngineLoop::RetryAfter(int wanted) const {
  const int missing = std::max(1, live_ + wanted - limit_);
  if (ends_ms_.size() < 2) return 1;
  const double ms_each = (NowMs() - ends_ms_.front()) / double(ends_ms_.size());
  return int(std::clamp(std::ceil(missing * ms_each / 1000), 1.0, double(kLongestRetry)));
}

void EngineLoop::Run() {
  while (TakeMail()) {
    const double start = NowMs();
    const std::span<const TokenEvent> events = engine_.Step();
    const double end = NowMs();
    // Counted before it is told: who has read a reply finds it in the counters.
    const StepRecord step = Record(events, start, end);
    if (observer_) observer_->OnStep(step);
    Deliver(events, end);
  }
}

StepRecord EngineLoop::Record(std::span<const TokenEvent> events, double start_ms, double end_ms) {
  const EngineLoad load = engine_.load();
  StepRecord step{.end_ms = end_ms,
                  .ms = end_ms - start_ms,
                  .cost = engine_.last_step(),
                  .running = load.active,
                  .waiting = load.waiting,
                  .kv_usage = double(load.used_blocks) / load.blocks,
                  .preemptions = load.preemptions};
  step.costs = engine_.costs().points();
  if (tally_) step.counts = tally_->Take();
  for (const TokenEvent& event : events) {
    if (event.token < 0) continue;
    ++step.tokens;
    Place& place = places_.at(event.sequence);
    if (place.first_ms > 0) continue;
    place.first_ms = end_ms;
    step.prompt_tokens += place.prompt_tokens;
  }
  return step;
}

// Hands the messages to the engine; waits for some while it is idle. False at the end.
bool EngineLoop::TakeMail() {
  std::vector<Call> calls;
  std::vector<std::shared_ptr<ReplyStream>> cancels;
  {
    std::unique_lock lock(mutex_);
    while (engine_.Idle() && calls_.empty()) {
      cancels_.clear();  // of calls that have ended
      if (stop_) return false;
      mail_.wait(lock);
    }
    calls.swap(calls_);
    cancels.swap(cancels_);
    if (cancel_all_) {
      for (const auto& [id, place] : places_) cancels.push_back(place.stream);
      for (const Call& call : calls) cancels.push_back(call.stream);
    }
  }
  for (Call& call : calls) Start(std::move(call));
  for (const auto& stream : cancels) CancelStream(stream.get());
  return true;
}

void EngineLoop::Start(Call call) {
  std::vector<SequenceId> ids;
  Status status;
  for (Request& request : call.requests) {
    const int prompt_tokens = int(request.prompt.size());
    const auto id = engine_.Submit(std::move(request));
    if (!id) {
      status = id.error();
      break;
    }
    places_[*id] = {call.stream, int(ids.size()), prompt_tokens, call.submitted_ms, 0};
    ids.push_back(*id);
  }
  if (!status.ok()) {  // nobody will read what the others say
    for (const SequenceId id : ids) engine_.Cancel(id);
    const std::scoped_lock lock(mutex_);
    live_ -= int(call.requests.size() - ids.size());
    if (live_ == 0) ended_.notify_all();
  }
  call.stream->Settle(std::move(status));
}

void EngineLoop::CancelStream(const ReplyStream* stream) {
  for (const auto& [id, place] : places_) {
    if (place.stream.get() == stream) engine_.Cancel(id);
  }
}

// A sequence's events stand together: one message, one wake-up of its reader.
void EngineLoop::Deliver(std::span<const TokenEvent> events, double now_ms) {
  for (size_t begin = 0, end = 0; begin < events.size(); begin = end) {
    while (end < events.size() && events[end].sequence == events[begin].sequence) ++end;
    const auto part = events.subspan(begin, end - begin);
    const auto at = places_.find(part.front().sequence);
    const auto stream = at->second.stream;
    const int choice = at->second.choice;
    if (part.back().finish != FinishReason::kNone) {
      End(at->second, part.back(), now_ms);
      places_.erase(at);
    }
    stream->Push(choice, part);  // last: what the reader does next finds the place free
  }
}

void EngineLoop::End(const Place& place, const TokenEvent& last, double now_ms) {
  if (observer_) {
    observer_->OnEnd({.finish = last.finish,
                      .first_token_ms = place.first_ms > 0 ? place.first_ms - place.submitted_ms : 0,
                      .total_ms = now_ms - place.submitted_ms,
                      .stats = last.stats.get()});
  }
  const std::scoped_lock lock(mutex_);
  ends_ms_.push_back(now_ms);
  if (ends_ms_.size() > kEndsKept) ends_ms_.pop_front();
  if (--live_ == 0) ended_.notify_all();
}

}  // namespace dspark

// One thread that drives an Engine for many callers.
//
// Submit and Cancel leave a message; the loop takes all messages between two steps, so a call starts and a
// cancelled one ends within one step. Events go into each call's ReplyStream, and the loop never waits for a
// reader. While nothing runs the thread sleeps.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "serve/load_observer.h"
#include "serve/reply_stream.h"

namespace dspark {

struct LoopOptions {
  int queue = 256;  // sequences that may wait beside those that the engine decodes at once
};

// Why a call was not taken.
struct Refusal {
  bool draining = false;    // no further call is taken; else the queue is full
  int retry_after_s = 1;    // when there should be room again, from the rate at which replies end
  int live = 0, limit = 0;  // sequences running and waiting; how many there may be
};

class EngineLoop {
 public:
  using Outcome = std::variant<std::shared_ptr<ReplyStream>, Refusal>;

  // `engine` is used by the loop's thread alone from here on. `tally` (may be null) is the engine's observer;
  // `observer` (may be null) is told of every step. All outlive the loop.
  EngineLoop(Engine& engine, const LoopOptions& options, RoundTally* tally, LoadObserver* observer);
  ~EngineLoop();  // as Drain(0)

  // At least one request; they are answered in one stream, as its choices 0, 1, …. From any thread.
  Outcome Submit(std::vector<Request> requests);
  // Ends the stream's sequences at the next step. From any thread.
  void Cancel(const std::shared_ptr<ReplyStream>& stream);

  // Takes no further call, and returns when all sequences have ended; those that run on after `limit_ms` are
  // cancelled. From one thread at a time.
  void Drain(double limit_ms);
  bool draining() const;

  // Sequences, running or waiting.
  int live() const;
  int limit() const { return limit_; }

 private:
  struct Call {
    std::shared_ptr<ReplyStream> stream;
    std::vector<Request> requests;
    double submitted_ms = 0;
  };
  // Where a sequence's events go.
  struct Place {
    std::shared_ptr<ReplyStream> stream;
    int choice = 0;
    int prompt_tokens = 0;
    double submitted_ms = 0, first_ms = 0;
  };

  void Run();
  bool TakeMail();
  void Start(Call call);
  void CancelStream(const ReplyStream* stream);
  StepRecord Record(std::span<const TokenEvent> events, double start_ms, double end_ms);
  void Deliver(std::span<const TokenEvent> events, double now_ms);
  void End(const Place& place, const TokenEvent& last, double now_ms);
  int RetryAfter(int wanted) const;

  Engine& engine_;
  const int limit_;
  RoundTally* const tally_;
  LoadObserver* const observer_;
  std::unordered_map<SequenceId, Place> places_;  // of the loop's thread

  mutable std::mutex mutex_;  // of all below
  std::condition_variable mail_, ended_;
  std::vector<Call> calls_;
  std::vector<std::shared_ptr<ReplyStream>> cancels_;
  std::deque<double> ends_ms_;  // of the latest sequences
  int live_ = 0;
  bool draining_ = false, cancel_all_ = false, stop_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace dspark

// A session that several threads may use at once: the engine behind a handle of the library.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "api/session.h"
#include "grammar/response_constraint.h"

namespace dspark {

// A lock that is given in the order it is asked for. With std::mutex a thread that steps without a pause
// would keep all others out.
class TurnMutex {
 public:
  void lock();
  void unlock();

 private:
  std::mutex mutex_;
  std::condition_variable next_;
  uint64_t asked_ = 0, serving_ = 0;
};

// What a request has come to.
struct SharedReply {
  std::deque<TokenEvent> events;               // not yet polled
  TokenEvent polled;                           // the last one that was
  std::shared_ptr<const SequenceStats> stats;  // once it has ended
};

// Any method from any thread. Submit, Step, Cancel and Release take turns; a turn is a step at most.
class SharedEngine {
 public:
  // Error: as Session::Open.
  static Result<std::shared_ptr<SharedEngine>> Open(const SessionOptions& options);

  // Of the session only what loading decided: files, limits, times.
  const Session& session() const { return *session_; }

  // What keeps a reply to `form`; null where it is free. The model has a tokenizer. Error: the schema is not
  // supported: its place, and why.
  Result<std::shared_ptr<const Constraint>> Constrain(const ReplyForm& form);
  // Error: as Engine::Submit.
  Result<SequenceId> Submit(Request request);
  // Requests that run or wait after it.
  int Step();

  // False where there is no such request: never submitted, or released.
  bool Cancel(SequenceId id);
  bool Release(SequenceId id);

  // The next event, which stays valid until the next call with this id; null where there is none now.
  // Nothing: no such request.
  std::optional<const TokenEvent*> Poll(SequenceId id);
  // Null while the request runs. Nothing: no such request.
  std::optional<std::shared_ptr<const SequenceStats>> Stats(SequenceId id);

 private:
  explicit SharedEngine(std::unique_ptr<Session> session) : session_(std::move(session)) {}

  const std::unique_ptr<Session> session_;
  std::once_flag tokens_made_;
  std::shared_ptr<const TokenTrie> tokens_;  // made when it is first needed
  TurnMutex turn_;                           // of the session's engine and live_; asked for before mutex_
  int live_ = 0;
  std::mutex mutex_;  // of replies_; never held over a step
  std::unordered_map<SequenceId, SharedReply> replies_;
};

}  // namespace dspark

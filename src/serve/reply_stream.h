// The events of one call on their way from the engine's thread to the one that answers.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/result.h"
#include "engine/request.h"

namespace dspark {

struct ReplyEvent {
  int choice = 0;  // which of the call's sequences
  TokenEvent event;
};

// A call is one or more sequences that are answered together. Each ends with one event whose `finish` is set;
// the stream has ended when all have. It holds at most what its sequences' max_tokens allow, so that the
// writer never waits for the reader.
class ReplyStream {
 public:
  explicit ReplyStream(int choices) : choices_(choices) {}

  // For the reader. Waits until the engine has taken the call, a step at most. Error: why it did not; then no
  // events come.
  Status Accepted();
  // Waits for events at most `wait_ms`, and moves them into `events`, which is emptied first. False when none
  // came in time.
  bool Take(double wait_ms, std::vector<ReplyEvent>* events);

  // For the writer.
  void Settle(Status status);
  void Push(int choice, std::span<const TokenEvent> events);

  int choices() const { return choices_; }

 private:
  const int choices_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Status> accepted_;
  std::vector<ReplyEvent> events_;
};

}  // namespace dspark

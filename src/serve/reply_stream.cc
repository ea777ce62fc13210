#include "serve/reply_stream.h"

#include <chrono>

namespace dspark {

Status ReplyStream::Accepted() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return accepted_.has_value(); });
  return *accepted_;
}

bool ReplyStream::Take(double wait_ms, std::vector<ReplyEvent>* events) {
  events->clear();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::duration<double, std::milli>(wait_ms),
                    [&] { return !events_.empty(); });
  events->swap(events_);
  return !events->empty();
}

void ReplyStream::Settle(Status status) {
  const std::scoped_lock lock(mutex_);
  accepted_ = std::move(status);
  changed_.notify_all();
}

void ReplyStream::Push(int choice, std::span<const TokenEvent> events) {
  {
    const std::scoped_lock lock(mutex_);
    for (const TokenEvent& event : events) events_.push_back({choice, event});
  }
  changed_.notify_one();
}

}  // namespace dspark

// The last two minutes of a server's load, second by second: what the live page draws.
#pragma once

#include <array>
#include <mutex>
#include <string>

#include "serve/load_observer.h"

namespace dspark {

class LoadHistory : public LoadObserver {
 public:
  void OnStep(const StepRecord& step) override;
  void OnEnd(const EndRecord&) override {}

  // {"now": s, "seconds": [{"age", "running", "waiting", "tokens", "rows", "length", "accepted"}, …]}, oldest
  // first: sequences at once, tokens of that second, rows of a pass and drafts verified per round in the
  // mean, the share of drafts kept. Seconds without a step are left out. From any thread.
  std::string Json() const;

 private:
  static constexpr int kSeconds = 120;
  struct Second {
    int64_t at = -1;  // of the steady clock
    int steps = 0, waiting = 0, tokens = 0;
    int64_t running = 0, rows = 0;  // sums over the steps
    int rounds = 0, drafted = 0, accepted = 0;
  };
  mutable std::mutex mutex_;
  std::array<Second, kSeconds> seconds_;  // by `at` modulo kSeconds
};

}  // namespace dspark

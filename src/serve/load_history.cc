#include "serve/load_history.h"

#include <fmt/format.h>

#include "core/clock.h"

namespace dspark {

void LoadHistory::OnStep(const StepRecord& step) {
  if (step.cost.rows == 0) return;
  const auto at = int64_t(step.end_ms / 1000);
  const std::scoped_lock lock(mutex_);
  Second& second = seconds_[size_t(at % kSeconds)];
  if (second.at != at) second = {.at = at};
  ++second.steps;
  second.running += std::max(step.running, 1);  // one that ended in this step ran
  second.waiting = step.waiting;
  second.tokens += step.tokens;
  second.rows += step.cost.rows;
  second.rounds += step.counts.rounds;
  second.drafted += step.counts.drafted;
  second.accepted += step.counts.accepted;
}

std::string LoadHistory::Json() const {
  const auto now = int64_t(NowMs() / 1000);
  std::string json = fmt::format("{{\"now\":{},\"seconds\":[", now);
  const char* comma = "";
  const std::scoped_lock lock(mutex_);
  for (int64_t at = now - kSeconds + 1; at <= now; ++at) {
    const Second& s = seconds_[size_t(at % kSeconds)];
    if (at < 0 || s.at != at) continue;
    fmt::format_to(std::back_inserter(json),
                   "{}{{\"age\":{},\"running\":{:.2f},\"waiting\":{},\"tokens\":{},\"rows\":{:.2f},"
                   "\"length\":{:.3f},\"accepted\":{:.3f}}}",
                   comma, now - at, double(s.running) / s.steps, s.waiting, s.tokens,
                   double(s.rows) / s.steps, s.rounds ? double(s.drafted) / s.rounds : 0,
                   s.drafted ? double(s.accepted) / s.drafted : 0);
    comma = ",";
  }
  return json + "]}";
}

}  // namespace dspark

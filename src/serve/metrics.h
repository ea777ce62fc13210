// Prometheus metrics of a server: vLLM's names where vLLM has them, dspark_… for the rest (docs/serving.md).
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>
#include <utility>
#include <vector>

#include "serve/load_observer.h"

namespace dspark {

// Counters that differ in a label which counts up from 0; made as they are needed.
class CounterSeries {
 public:
  CounterSeries(prometheus::Family<prometheus::Counter>& family, prometheus::Labels labels, const char* label)
      : family_(family), labels_(std::move(labels)), label_(label) {}
  // Adds counts[i] to counter i.
  void Add(const std::vector<int>& counts);

 private:
  prometheus::Family<prometheus::Counter>& family_;
  prometheus::Labels labels_;
  const char* label_;
  std::vector<prometheus::Counter*> counters_;
};

class ServeMetrics : public LoadObserver {
 public:
  explicit ServeMetrics(const std::string& model);

  // On the engine's thread.
  void OnStep(const StepRecord& step) override;
  void OnEnd(const EndRecord& end) override;

  // Of a request that was answered with an HTTP status. From any thread.
  void CountStatus(int status);
  // Prometheus' text format. From any thread.
  std::string Text() const;

 private:
  prometheus::Registry registry_;
  const prometheus::Labels labels_;
  prometheus::Counter &prompt_tokens_, &tokens_, &asked_, &cached_, &preempted_, &drafts_, &drafted_,
      &accepted_, &steps_, &step_s_, &draft_s_, &verify_s_;
  prometheus::Gauge &running_, &waiting_, &kv_usage_;
  prometheus::Histogram &first_token_, &per_token_, &total_, &rows_;
  prometheus::Family<prometheus::Counter>&finished_, &statuses_;
  CounterSeries accepted_at_, verify_length_;
  prometheus::Family<prometheus::Gauge>& speed_;
  int steps_to_costs_ = 0;  // until the cost table is shown anew
};

}  // namespace dspark

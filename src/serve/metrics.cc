#include "serve/metrics.h"

#include <prometheus/text_serializer.h>

#include <sstream>

namespace dspark {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

prometheus::Family<Counter>& CounterFamily(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
Counter& MakeCounter(Registry& registry, const Labels& labels, const char* name, const char* help) {
  return CounterFamily(registry, name, help).Add(labels);
}
prometheus::Family<Gauge>& GaugeFamily(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
Gauge& MakeGauge(Registry& registry, const Labels& labels, const char* name, const char* help) {
  return GaugeFamily(registry, name, help).Add(labels);
}
Histogram& MakeHistogram(Registry& registry, const Labels& labels, const char* name, const char* help,
                         const Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, bounds);
}

Labels With(Labels labels, const char* name, std::string value) {
  labels[name] = std::move(value);
  return labels;
}

// vLLM's buckets, in seconds.
const Histogram::BucketBoundaries kFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                                 0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                                 20,    40,    80,   160,  640,  2560};
const Histogram::BucketBoundaries kPerToken = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                               0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5,
                                               5,     7.5,    10,    20,   40,    80};
const Histogram::BucketBoundaries kTotal = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                            30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
const Histogram::BucketBoundaries kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};

constexpr int kStepsBetweenCosts = 64;

// vLLM's words for how a request ended.
const char* FinishedReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      return "error";
    default:
      return "abort";
  }
}

}  // namespace

ServeMetrics::ServeMetrics(const std::string& model)
    : labels_{{"model_name", model}, {"engine", "0"}},
      prompt_tokens_(MakeCounter(registry_, labels_, "vllm:prompt_tokens_total", "Prompt tokens read.")),
      tokens_(MakeCounter(registry_, labels_, "vllm:generation_tokens_total", "Tokens generated.")),
      asked_(MakeCounter(registry_, labels_, "vllm:prefix_cache_queries_total",
                         "Prompt tokens of ended sequences.")),
      cached_(MakeCounter(registry_, labels_, "vllm:prefix_cache_hits_total",
                          "Of these, tokens whose K/V the prefix cache had.")),
      preempted_(MakeCounter(registry_, labels_, "vllm:num_preemptions_total",
                             "Sequences that gave their KV blocks back and were run again.")),
      drafts_(MakeCounter(registry_, labels_, "vllm:spec_decode_num_drafts_total",
                          "Rounds that verified at least one draft.")),
      drafted_(
          MakeCounter(registry_, labels_, "vllm:spec_decode_num_draft_tokens_total", "Drafts verified.")),
      accepted_(
          MakeCounter(registry_, labels_, "vllm:spec_decode_num_accepted_tokens_total", "Drafts kept.")),
      steps_(MakeCounter(registry_, labels_, "dspark_steps_total", "Steps of the engine.")),
      step_s_(MakeCounter(registry_, labels_, "dspark_step_seconds_total", "Time of all steps.")),
      draft_s_(
          MakeCounter(registry_, labels_, "dspark_step_draft_seconds_total", "Of it: proposing drafts.")),
      verify_s_(MakeCounter(registry_, labels_, "dspark_step_verify_seconds_total",
                            "Of it: the target's pass and the accept rule.")),
      running_(MakeGauge(registry_, labels_, "vllm:num_requests_running", "Sequences in the batch.")),
      waiting_(
          MakeGauge(registry_, labels_, "vllm:num_requests_waiting", "Sequences that wait for a place.")),
      kv_usage_(MakeGauge(registry_, labels_, "vllm:kv_cache_usage_perc",
                          "Share of the KV blocks in use; 1 means 100 percent.")),
      first_token_(MakeHistogram(registry_, labels_, "vllm:time_to_first_token_seconds",
                                 "From the request to its first token.", kFirstToken)),
      per_token_(MakeHistogram(registry_, labels_, "vllm:time_per_output_token_seconds",
                               "Mean time between the tokens of a finished reply.", kPerToken)),
      total_(MakeHistogram(registry_, labels_, "vllm:e2e_request_latency_seconds",
                           "From the request to its end.", kTotal)),
      rows_(MakeHistogram(registry_, labels_, "dspark_step_rows", "Rows of the target's pass, by step.",
                          kRows)),
      finished_(CounterFamily(registry_, "vllm:request_success_total", "Sequences that ended, by reason.")),
      statuses_(CounterFamily(registry_, "dspark_http_responses_total", "Responses, by HTTP status.")),
      accepted_at_(CounterFamily(registry_, "vllm:spec_decode_num_accepted_tokens_per_pos_total",
                                 "Drafts kept, by position in the block."),
                   labels_, "position"),
      verify_length_(CounterFamily(registry_, "dspark_verify_length_rounds_total",
                                   "Rounds, by the number of drafts they verified."),
                     labels_, "drafts"),
      speed_(GaugeFamily(registry_, "dspark_steps_per_second",
                         "What the cost table says of a pass of that many rows.")) {}

void CounterSeries::Add(const std::vector<int>& counts) {
  for (size_t i = counters_.size(); i < counts.size(); ++i)
    counters_.push_back(&family_.Add(With(labels_, label_, std::to_string(i))));
  for (size_t i = 0; i < counts.size(); ++i) counters_[i]->Increment(counts[i]);
}

void ServeMetrics::OnStep(const StepRecord& step) {
  running_.Set(step.running);
  waiting_.Set(step.waiting);
  kv_usage_.Set(step.kv_usage);
  preempted_.Increment(double(step.preemptions) - preempted_.Value());
  if (step.cost.rows == 0) return;
  steps_.Increment();
  step_s_.Increment(step.ms / 1000);
  draft_s_.Increment(step.cost.draft_ms / 1000);
  verify_s_.Increment(step.cost.verify_ms / 1000);
  rows_.Observe(step.cost.rows);
  prompt_tokens_.Increment(step.prompt_tokens);
  tokens_.Increment(step.tokens);
  drafts_.Increment(step.counts.drafts);
  drafted_.Increment(step.counts.drafted);
  accepted_.Increment(step.counts.accepted);
  verify_length_.Add(step.counts.by_length);
  accepted_at_.Add(step.counts.accepted_at);
  if (--steps_to_costs_ > 0) return;
  steps_to_costs_ = kStepsBetweenCosts;
  for (const CostTable::Point& point : step.costs)
    speed_.Add(With(labels_, "rows", std::to_string(point.rows))).Set(1000 / point.ms);
}

void ServeMetrics::OnEnd(const EndRecord& end) {
  finished_.Add(With(labels_, "finished_reason", FinishedReason(end.finish))).Increment();
  if (end.first_token_ms > 0) first_token_.Observe(end.first_token_ms / 1000);
  total_.Observe(end.total_ms / 1000);
  if (end.stats) {
    asked_.Increment(end.stats->prompt_tokens);
    cached_.Increment(end.stats->cached_tokens);
  }
  const int decoded = end.stats ? end.stats->completion_tokens - 1 : 0;
  if (decoded > 0 && end.first_token_ms > 0)
    per_token_.Observe((end.total_ms - end.first_token_ms) / 1000 / decoded);
}

void ServeMetrics::CountStatus(int status) {
  statuses_.Add(With(labels_, "status", std::to_string(status))).Increment();
}

std::string ServeMetrics::Text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, registry_.Collect());
  return out.str();
}

}  // namespace dspark

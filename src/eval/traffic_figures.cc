#include "eval/traffic_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace dspark {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double Ratio(double part, double whole) { return whole > 0 ? part / whole : kNone; }

// JSON has no NaN: null.
nlohmann::ordered_json Number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json ToJson(const Percentiles& p) {
  return {{"p50", Number(p.p50)}, {"p90", Number(p.p90)}, {"p99", Number(p.p99)}};
}

}  // namespace

namespace {

// Every sum of `a`, plus `factor` times that of `b`.
StepSums Combine(StepSums a, const StepSums& b, int factor) {
  for (int64_t StepSums::*sum :
       {&StepSums::steps, &StepSums::rows, &StepSums::sequences, &StepSums::rounds, &StepSums::drafted,
        &StepSums::accepted, &StepSums::committed, &StepSums::tokens})
    a.*sum += factor * b.*sum;
  for (double StepSums::*sum : {&StepSums::ms, &StepSums::pass_ms, &StepSums::drafter_ms})
    a.*sum += factor * b.*sum;
  return a;
}

}  // namespace

StepSums& StepSums::operator+=(const StepSums& other) { return *this = Combine(*this, other, 1); }
StepSums StepSums::operator-(const StepSums& before) const { return Combine(*this, before, -1); }

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return kNone;
  const auto rank = size_t(std::max(1.0, std::ceil(p * double(values.size()))));
  const auto at = values.begin() + std::ptrdiff_t(std::min(rank, values.size()) - 1);
  std::ranges::nth_element(values, at);
  return *at;
}

Percentiles PercentilesOf(const std::vector<double>& values) {
  return {Percentile(values, 0.5), Percentile(values, 0.9), Percentile(values, 0.99)};
}

LoadFigures FiguresOf(std::span<const LoadRun> runs) {
  LoadFigures f;
  std::vector<double> ttft, tpot;
  StepSums sums;
  double window_ms = 0, sum_tpot = 0;
  for (const LoadRun& run : runs) {
    f.runs.push_back(Ratio(run.window_tokens * 1000, run.window_ms));
    window_ms += run.window_ms;
    sums += run.steps;
    for (const ReplyTimes& reply : run.replies) {
      f.errors += !reply.error.empty();
      if (f.first_error.empty()) f.first_error = reply.error;
      f.replies += reply.complete;
      f.cut += !reply.complete && reply.error.empty();
      if (reply.first_ms > 0) ttft.push_back(reply.first_ms - reply.due_ms);
      // A reply that was cut counts too: without them slow ones would be missed.
      if (reply.tokens > 1) tpot.push_back((reply.last_ms - reply.first_ms) / (reply.tokens - 1));
    }
  }
  for (const double ms : tpot) sum_tpot += ms;
  f.tok_per_s = Percentile(f.runs, 0.5);
  f.user_tok_per_s = Ratio(1000 * double(tpot.size()), sum_tpot);
  f.ttft_ms = PercentilesOf(ttft);
  f.tpot_ms = PercentilesOf(tpot);
  f.verify_length = Ratio(double(sums.drafted), double(sums.rounds));
  f.acceptance = Ratio(double(sums.accepted), double(sums.drafted));
  f.tau = Ratio(double(sums.committed), double(sums.rounds));
  f.rows = Ratio(double(sums.rows), double(sums.steps));
  f.sequences = Ratio(double(sums.sequences), double(sums.steps));
  f.scheduling = Ratio(sums.ms - sums.pass_ms - sums.drafter_ms, sums.ms);
  f.drafting = Ratio(sums.drafter_ms, sums.ms);
  f.outside = sums.steps > 0 ? Ratio(window_ms - sums.ms, window_ms) : kNone;
  return f;
}

nlohmann::ordered_json ToJson(const LoadPoint& point) {
  const LoadFigures& f = point.figures;
  nlohmann::ordered_json json{{"policy", point.policy}};
  if (point.concurrency > 0) {
    json["concurrency"] = point.concurrency;
  } else {
    json["requests_per_s"] = point.per_second;
  }
  json["tok_per_s"] = Number(f.tok_per_s);
  json["tok_per_s_runs"] = nlohmann::ordered_json::array();
  for (const double run : f.runs) json["tok_per_s_runs"].push_back(Number(run));
  json["user_tok_per_s"] = Number(f.user_tok_per_s);
  json["ttft_ms"] = ToJson(f.ttft_ms);
  json["tpot_ms"] = ToJson(f.tpot_ms);
  json["replies"] = f.replies;
  json["cut"] = f.cut;
  json["errors"] = f.errors;
  if (!f.first_error.empty()) json["first_error"] = f.first_error;
  json["verify_length"] = Number(f.verify_length);
  json["acceptance"] = Number(f.acceptance);
  json["tau"] = Number(f.tau);
  json["rows_per_step"] = Number(f.rows);
  json["sequences_per_step"] = Number(f.sequences);
  json["scheduling_share"] = Number(f.scheduling);
  json["drafter_share"] = Number(f.drafting);
  json["outside_share"] = Number(f.outside);
  return json;
}

nlohmann::ordered_json ToJson(const TrafficResults& results) {
  nlohmann::ordered_json json{{"title", results.title},
                              {"model", results.model},
                              {"machine", results.machine},
                              {"drafter", results.drafter},
                              {"prompts", results.prompts},
                              {"load", results.load},
                              {"temperature", results.temperature},
                              {"max_tokens", results.max_tokens}};
  json["points"] = nlohmann::ordered_json::array();
  for (const LoadPoint& point : results.points) json["points"].push_back(ToJson(point));
  return json;
}

}  // namespace dspark

// What a server made of a load: times of replies, sums over steps, and the figures taken from them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace dspark {

// One reply, times in ms on any clock.
struct ReplyTimes {
  double due_ms = 0;      // when it was to be asked for
  double first_ms = 0;    // its first token; 0: there was none
  double last_ms = 0;     // its last token
  int tokens = 0;         // that came, the first one included
  bool complete = false;  // it was read to its end
  std::string error = {};
};

// Sums over the steps of a run; all zero where only replies were seen.
struct StepSums {
  int64_t steps = 0, rows = 0, sequences = 0;  // sequences that get tokens
  int64_t rounds = 0, drafted = 0, accepted = 0, committed = 0;
  double ms = 0;                       // of the steps
  double pass_ms = 0, drafter_ms = 0;  // of these: the target's passes, the drafter
  int64_t tokens = 0;                  // committed, first ones of replies included

  StepSums& operator+=(const StepSums& other);
  StepSums operator-(const StepSums& before) const;  // what came since
};

// A load run once: replies, and what the steps within its window came to.
struct LoadRun {
  double window_ms = 0;      // from when the load was on until it began to fade
  double window_tokens = 0;  // that came out in it
  std::vector<ReplyTimes> replies = {};
  StepSums steps = {};
};

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;  // NaN of no values
};
// By the nearest rank: the smallest value that at least p of all do not exceed.
double Percentile(std::vector<double> values, double p);
Percentiles PercentilesOf(const std::vector<double>& values);

// One policy under one load, all repetitions. NaN where nothing was measured.
struct LoadFigures {
  double tok_per_s = 0;                  // of all streams: the median over the repetitions
  std::vector<double> runs;              // tok/s of each repetition
  double user_tok_per_s = 0;             // 1 / the mean time per token of a reply behind its first
  Percentiles ttft_ms, tpot_ms;          // to the first token, from when it was due; per token behind it
  int replies = 0, cut = 0, errors = 0;  // complete; under way at the end; failed
  std::string first_error;
  double verify_length = 0;        // drafts verified a round
  double acceptance = 0;           // share of these kept
  double tau = 0;                  // tokens of a round
  double rows = 0, sequences = 0;  // of a step: rows of its pass, and sequences that get tokens
  // Shares of the steps' time: plan, trim, accept and bookkeeping, without pass and drafter; the drafter.
  // And of the window's time: outside steps, that is messages, HTTP and what the machine did else.
  double scheduling = 0, drafting = 0, outside = 0;
};
LoadFigures FiguresOf(std::span<const LoadRun> runs);

struct LoadPoint {
  std::string policy = {};
  int concurrency = 0;    // of a closed load; 0: an open one
  double per_second = 0;  // of an open one
  LoadFigures figures = {};
  // What loads are sorted and drawn by.
  double Load() const { return concurrency > 0 ? concurrency : per_second; }
};

// What was run, or simulated.
struct TrafficResults {
  std::string title = {}, model = {}, machine = {}, drafter = {}, prompts = {}, load = {};
  double temperature = 0;
  int max_tokens = 0;
  std::vector<LoadPoint> points = {};
};

nlohmann::ordered_json ToJson(const LoadPoint& point);
nlohmann::ordered_json ToJson(const TrafficResults& results);

}  // namespace dspark

#include "apps/traffic_plan.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "apps/flags.h"
#include "apps/output.h"

namespace dspark {
namespace {

std::string Cell(double value, int width, int digits) {
  return std::isfinite(value) ? fmt::format("{:>{}.{}f}", value, width, digits)
                              : fmt::format("{:>{}}", "-", width);
}

}  // namespace

void AddTrafficFlags(CLI::App& app, TrafficOptions* options) {
  app.add_option("--policies", options->policies,
                 "What is compared, as --policy of serve [adaptive,off,fixed:1,fixed:2,fixed:4,fixed:7]")
      ->delimiter(',');
  CLI::Option* closed = app.add_option("--concurrency", options->concurrency,
                                       "Closed loads: streams at once [1,2,4,8,16,32,64]")
                            ->delimiter(',')
                            ->check(CLI::Range(1, 1024));
  CLI::Option* rate = app.add_option("--rate", options->rates, "Open loads: requests per second (Poisson)")
                          ->delimiter(',')
                          ->check(Within(1e-3, 1e4))
                          ->excludes(closed);
  app.add_option("--trace", options->trace, "An open load from a file: JSON lines or CSV with at_s")
      ->excludes(closed)
      ->excludes(rate);
  app.add_option("--seconds", options->seconds, "Length of a load at a rate [30]")->check(Within(0.1, 1e5));
  app.add_option("--requests", options->requests, "Requests of a closed load, at least [16]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--per-stream", options->per_stream,
                 "Requests of a closed load for each stream, at least [3]")
      ->check(CLI::Range(1, 1 << 12));
  app.add_option("--seed", options->seed, "Of arrivals and sampled replies [980406]");
  app.add_option("--json", options->json, "Write all figures to this file");
  app.add_option("--html", options->html, "Write a report to this file: one page, nothing beside it");
}

Result<EngineOptions> OptionsOfPolicy(const std::string& policy, int sequences) {
  DraftOptions draft;
  draft.policy = policy;
  return ChooseEngineOptions(draft, sequences);
}

Status CheckPolicies(const std::vector<std::string>& policies) {
  for (const std::string& policy : policies) {
    if (const Status known = CheckPolicy(policy); !known)
      return MakeError("--policies: {}", known.error().text);
    if (std::ranges::count(policies, policy) > 1)
      return MakeError("--policies: {} stands there twice", policy);
  }
  return {};
}

Result<std::vector<LoadLevel>> PlanLevels(const TrafficOptions& options) {
  std::vector<LoadLevel> levels;
  if (!options.trace.empty()) {
    LoadLevel level;
    DSPARK_ASSIGN_OR_RETURN(level.arrivals, ReadTrace(options.trace));
    const double seconds = std::max(1.0, level.arrivals.back().at_ms / 1000);
    level.per_second = double(level.arrivals.size()) / seconds;
    levels.push_back(std::move(level));
    return levels;
  }
  for (const double rate : options.rates) {
    levels.push_back({.per_second = rate, .arrivals = PoissonArrivals(rate, options.seconds, options.seed)});
    if (levels.back().arrivals.empty())
      return MakeError("--rate {}: nobody comes within {} seconds; give more --seconds", rate,
                       options.seconds);
  }
  std::vector<int> concurrency = options.concurrency;
  if (concurrency.empty() && options.rates.empty()) concurrency = {1, 2, 4, 8, 16, 32, 64};
  for (const int streams : concurrency) {
    const int requests = std::max({options.requests, options.per_stream * streams, streams + 1});
    levels.push_back({.concurrency = streams, .arrivals = BackToBack(requests)});
  }
  std::ranges::stable_sort(levels, {},
                           [](const LoadLevel& level) { return level.concurrency + level.per_second; });
  return levels;
}

int MostStreams(const std::vector<LoadLevel>& levels, int open) {
  int most = 1;
  for (const LoadLevel& level : levels)
    most = std::max(most, level.concurrency > 0 ? level.concurrency : open);
  return most;
}

std::string DescribeLoad(const std::vector<LoadLevel>& levels, int repeat) {
  std::string text;
  for (const LoadLevel& level : levels) {
    if (!text.empty()) text += ", ";
    text += level.concurrency > 0
                ? fmt::format("{} stream{}", level.concurrency, level.concurrency == 1 ? "" : "s")
                : fmt::format("{:.3g} requests a second", level.per_second);
  }
  return text + (repeat > 1 ? fmt::format("; {} times, policies in turn", repeat) : "");
}

void PrintTraffic(const TrafficResults& results) {
  PrintOutput("{:>6} {:<14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6}\n",
              "load", "policy", "tok/s", "a user", "ttft ms", "tpot ms", "p99", "length", "kept", "tau",
              "rows", "sched %", "draft %", "errors");
  for (const LoadPoint& point : results.points) {
    const LoadFigures& f = point.figures;
    PrintOutput("{:>6.4g} {:<14} {} {} {} {} {} {} {} {} {} {} {} {:>6}\n", point.Load(), point.policy,
                Cell(f.tok_per_s, 8, 1), Cell(f.user_tok_per_s, 8, 1), Cell(f.ttft_ms.p50, 8, 0),
                Cell(f.tpot_ms.p50, 8, 2), Cell(f.tpot_ms.p99, 8, 2), Cell(f.verify_length, 7, 2),
                Cell(f.acceptance, 6, 2), Cell(f.tau, 6, 2), Cell(f.rows, 7, 1),
                Cell(100 * f.scheduling, 7, 2), Cell(100 * f.drafting, 7, 2), f.errors);
  }
}

}  // namespace dspark

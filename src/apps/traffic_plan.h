// What `bench serve` and `simulate` have in common: policies, loads, and reports.
#pragma once

#include <string>
#include <vector>

#include "api/draft_source.h"
#include "eval/traffic.h"
#include "eval/traffic_figures.h"

namespace CLI {
class App;
}

namespace dspark {

struct TrafficOptions {
  std::vector<std::string> policies{"adaptive", "off", "fixed:1", "fixed:2", "fixed:4", "fixed:7"};
  std::vector<int> concurrency;  // closed loads; with nothing else: 1, 2, 4, … 64
  std::vector<double> rates;     // open loads: requests per second
  std::string trace;             // an open load from a file
  double seconds = 30;           // of an open load at a rate
  int requests = 16, per_stream = 3;
  uint64_t seed = 980406;
  std::string json, html;
};

void AddTrafficFlags(CLI::App& app, TrafficOptions* options);

// One load to be run.
struct LoadLevel {
  int concurrency = 0;    // closed
  double per_second = 0;  // open
  std::vector<Arrival> arrivals = {};
};

// In order of load. Error: a trace that cannot be read, or policies that are none.
Result<std::vector<LoadLevel>> PlanLevels(const TrafficOptions& options);
// The engine's options under a policy alone. Error: it is none.
Result<EngineOptions> OptionsOfPolicy(const std::string& policy, int sequences);
Status CheckPolicies(const std::vector<std::string>& policies);
// The largest number of streams of any level; `open` for open ones.
int MostStreams(const std::vector<LoadLevel>& levels, int open);

// "closed loads of 1, 2 streams" and its like.
std::string DescribeLoad(const std::vector<LoadLevel>& levels, int repeat);

void PrintTraffic(const TrafficResults& results);

}  // namespace dspark

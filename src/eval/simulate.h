// A server under load, simulated: the engine itself, with its scheduler, on a clock of its own, over a target
// and a drafter that take the time a profile says and keep drafts as recorded replies did.
//
// Texts have no content: the token at every position is a function of the position, and drafts are that token
// as far as the record says they were kept. So sampled drafts are beyond it: replies are greedy.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "eval/serving_profile.h"
#include "eval/traffic.h"
#include "eval/traffic_figures.h"

namespace dspark {

struct SimulatedLoad {
  // Times, and tokens where they are given; else those of the profile's shapes in turn, as replies are,
  // from the one on that `seed` says.
  std::vector<Arrival> arrivals = {};
  int concurrency = 0;  // > 0: a closed load, whose streams take the next arrival as soon as one ends
  uint64_t seed = 0;
};

// `options`: the policy, and max_sequences. `speculate`: false runs no drafter. A closed load's window lasts
// from the first reply's end to when no arrival is left for a stream that ended. Profile: `replies` may be
// empty where nothing is drafted.
LoadRun Simulate(const ServingProfile& profile, const EngineOptions& options, bool speculate,
                 const SimulatedLoad& load);

}  // namespace dspark

// When requests come, and what they ask: closed loads (so many at once), open ones (Poisson), recorded ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

struct Arrival {
  double at_ms = 0;         // from the beginning
  std::string prompt = {};  // empty: the next one of the prompt sets
  int prompt_tokens = 0;    // > 0: a made-up prompt of about so many tokens
  int max_tokens = 0;       // of the reply; 0: as everywhere
};

// Arrivals of a Poisson process of `per_second` > 0 in [0, seconds): exponential gaps from Philox, the same
// for a seed.
std::vector<Arrival> PoissonArrivals(double per_second, double seconds, uint64_t seed);

// `count` requests that are all there from the beginning: what a closed load takes from.
std::vector<Arrival> BackToBack(int count);

// A recorded load. JSON lines: {"at_s": 0.25, "prompt": "…"} or {"at_s": 0.25, "prompt_tokens": 120}, and
// "max_tokens" in either. CSV (the name ends in .csv): a head line with at_s and any of prompt_tokens and
// max_tokens, then numbers. Sorted by time, and begun at its first request. Error: file, line, what is wrong.
Result<std::vector<Arrival>> ReadTrace(const std::string& path);

// Text of about `tokens` tokens (4 bytes each), cut from `source` over and over, from byte `offset` on so
// that no two begin alike.
std::string TextOfLength(const std::string& source, int tokens, size_t offset);

}  // namespace dspark

// A hash of token ids, for tables in memory: equal hashes are compared token by token.
#pragma once

#include <cstdint>
#include <span>

namespace dspark {

// Goes on from `hash`, so that hashes of texts chain.
inline uint64_t HashTokens(uint64_t hash, std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    hash = (hash ^ uint32_t(token)) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace dspark

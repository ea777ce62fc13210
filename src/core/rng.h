// Randomness is an argument. Every draw is a pure function of (request seed, position, purpose, index), so
// that a reply depends neither on batching nor on how many tokens a round verified.
//
// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace dspark {

// One independent stream per use: two purposes at the same position never share a number.
enum class Purpose : uint32_t {
  kDraft = 1,     // drawing a draft token from q; index: its place in the proposal
  kAccept = 2,    // the u of an accept test; index: 0, or in block verification the length of the prefix
  kResidual = 3,  // drawing the correction token from the residual
  kBonus = 4,     // drawing the token after a wholly accepted block (plain decoding: every token)
  kTest = 99,
};

// The 128-bit block of the counter under the key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 24 random bits, exactly representable in fp32. `index` tells draws at one position
// apart.
float UniformFloat(uint64_t seed, uint64_t position, Purpose purpose, uint32_t index = 0);

// Uniform in [0, 1) with 53 random bits.
double UniformDouble(uint64_t seed, uint64_t position, Purpose purpose, uint32_t index = 0);

}  // namespace dspark

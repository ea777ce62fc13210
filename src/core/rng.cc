#include "core/rng.h"

namespace dspark {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {uint32_t(product1 >> 32) ^ counter[1] ^ key[0], uint32_t(product1),
               uint32_t(product0 >> 32) ^ counter[3] ^ key[1], uint32_t(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

namespace {

std::array<uint32_t, 4> Draw(uint64_t seed, uint64_t position, Purpose purpose, uint32_t index) {
  return Philox4x32({uint32_t(position), uint32_t(position >> 32), uint32_t(purpose), index},
                    {uint32_t(seed), uint32_t(seed >> 32)});
}

}  // namespace

float UniformFloat(uint64_t seed, uint64_t position, Purpose purpose, uint32_t index) {
  return float(Draw(seed, position, purpose, index)[0] >> 8) * 0x1p-24f;
}

double UniformDouble(uint64_t seed, uint64_t position, Purpose purpose, uint32_t index) {
  const auto block = Draw(seed, position, purpose, index);
  const uint64_t bits = (uint64_t(block[0]) << 32 | block[1]) >> 11;
  return double(bits) * 0x1p-53;
}

}  // namespace dspark

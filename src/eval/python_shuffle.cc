#include "eval/python_shuffle.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>
#include <utility>

namespace dspark {
namespace {

constexpr size_t kStateWords = 624;

// MT19937's init_by_array (Matsumoto and Nishimura 2002) with the words of a whole number, lowest first, as a
// seed sequence of the standard library.
class InitByArray {
 public:
  using result_type = uint32_t;
  explicit InitByArray(uint64_t seed) : key_{uint32_t(seed)} {
    if (seed >> 32) key_.push_back(uint32_t(seed >> 32));
  }

  template <class Iterator>
  void generate(Iterator begin, Iterator end) {
    std::vector<uint32_t> x(kStateWords);
    x[0] = 19650218;
    for (uint32_t i = 1; i < kStateWords; ++i) x[i] = 1812433253 * Mixed(x[i - 1]) + i;
    size_t i = 1;
    const auto next = [&] {
      if (++i < kStateWords) return;
      x[0] = x[kStateWords - 1];
      i = 1;
    };
    for (size_t step = 0; step < kStateWords; ++step, next()) {
      const size_t j = step % key_.size();
      x[i] = (x[i] ^ (Mixed(x[i - 1]) * 1664525)) + key_[j] + uint32_t(j);
    }
    for (size_t step = 1; step < kStateWords; ++step, next())
      x[i] = (x[i] ^ (Mixed(x[i - 1]) * 1566083941)) - uint32_t(i);
    x[0] = 0x80000000;
    std::copy_n(x.begin(), end - begin, begin);
  }

 private:
  static uint32_t Mixed(uint32_t word) { return word ^ (word >> 30); }
  std::vector<uint32_t> key_;
};

// _randbelow of CPython: as many bits as n has, until they are less than n. 0 < n < 2^31.
uint32_t RandomBelow(uint32_t n, std::mt19937& random) {
  while (true) {
    const uint32_t r = uint32_t(random()) >> (32 - std::bit_width(n));
    if (r < n) return r;
  }
}

}  // namespace

std::vector<int> PythonShuffle(int n, uint64_t seed) {
  InitByArray words(seed);
  std::mt19937 random(words);
  std::vector<int> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i-- > 1;) std::swap(order[i], order[RandomBelow(uint32_t(i) + 1, random)]);
  return order;
}

}  // namespace dspark

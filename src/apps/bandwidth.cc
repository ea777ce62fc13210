#include "apps/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "core/buffer.h"

namespace dspark {

double ReadBandwidth(ThreadPool& pool) {
  constexpr int kWords = 64 << 20;  // 8-byte words: 512 MB
  Buffer<uint64_t> memory(kWords);
  std::vector<uint64_t> sums(pool.threads());
  double best = 0;
  for (int pass = 0; pass < 6; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.Run([&](Worker& worker) {
      const Range words = worker.Share(kWords, 4096);
      // The first pass writes, so that every page is real memory and not the shared page of zeros.
      if (pass == 0) std::fill(memory.data() + words.begin, memory.data() + words.end, 1);
      uint64_t sum[8] = {};
      for (int i = words.begin; i < words.end; i += 8) {
        for (int j = 0; j < 8; ++j) sum[j] += memory[i + j];
      }
      for (uint64_t s : sum) sums[worker.index()] += s;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (pass > 0) best = std::max(best, double(memory.Bytes()) / seconds / 1e9);
  }
  // The sums are used, so that the reads are not optimised away.
  return std::count(sums.begin(), sums.end(), uint64_t{0}) > 0 ? 0 : best;
}

}  // namespace dspark

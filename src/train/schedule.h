// The learning rate of each step (drafters.md §13 with its correction 0.1), and the order of the data.
#pragma once

#include <cstdint>
#include <vector>

namespace dspark {

// Linear warm-up over the first `warmup` steps, then a cosine down to 0 at `total`.
struct LearningRate {
  double peak = 6e-4;
  int64_t total = 0, warmup = 0;  // steps; warmup < total

  // Of the reference's recipe: int(0.04 * total) steps of warm-up.
  static LearningRate Recipe(double peak, int64_t total, double warmup_share = 0.04);
  double At(int64_t step) const;
};

// torch.randperm(n) of a CPU generator seeded with `seed`.
std::vector<int64_t> TorchPermutation(int64_t n, uint64_t seed);

// The indices of optimizer step `step`, in the order they are trained on: a slice of the epoch's permutation
// (seed + epoch), whose last n % batch items are left out. batch <= n.
class DataOrder {
 public:
  DataOrder(int64_t n, int64_t batch, uint64_t seed = 42) : n_(n), batch_(batch), seed_(seed) {}

  int64_t steps_per_epoch() const { return n_ / batch_; }
  std::vector<int64_t> Batch(int64_t step);

 private:
  int64_t n_, batch_;
  uint64_t seed_;
  int64_t epoch_ = -1;  // of permutation_
  std::vector<int64_t> permutation_;
};

}  // namespace dspark

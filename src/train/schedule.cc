#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "core/check.h"

namespace dspark {

LearningRate LearningRate::Recipe(double peak, int64_t total, double warmup_share) {
  return {peak, total, int64_t(warmup_share * double(total))};
}

double LearningRate::At(int64_t step) const {
  if (step < warmup) return peak * double(step + 1) / double(warmup);
  const auto rise = [&](int64_t i) {
    return 1 + std::cos(std::numbers::pi * double(i) / double(total - warmup));
  };
  // The reference's scheduler starts from the peak one step late, so that step `warmup` lies a little above
  // it. Where that is the last step its formula divides by 0, and its first value is twice the peak.
  if (total - warmup == 1) return 2 * peak;
  return peak * rise(step - warmup) / rise(1);
}

std::vector<int64_t> TorchPermutation(int64_t n, uint64_t seed) {
  std::mt19937 random{uint32_t(seed)};
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = 0; i + 1 < n; ++i) std::swap(order[size_t(i)], order[size_t(i + random() % (n - i))]);
  return order;
}

std::vector<int64_t> DataOrder::Batch(int64_t step) {
  DSPARK_CHECK_LE(batch_, n_);
  const int64_t epoch = step / steps_per_epoch(), first = step % steps_per_epoch() * batch_;
  if (epoch != epoch_) permutation_ = TorchPermutation(n_, seed_ + uint64_t(epoch));
  epoch_ = epoch;
  return {permutation_.begin() + first, permutation_.begin() + first + batch_};
}

}  // namespace dspark

#include "train/block_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace dspark {

void BlockMetrics::Add(const BlockSlots& slots, std::span<const int64_t> at, const float* ce, const float* l1,
                       const float* confidence) {
  double survival = 1, promised = 1;
  for (size_t i = 0; i < at.size(); ++i) {
    const int64_t k = at[i] % slots.gamma;
    const double accept = std::clamp(1 - 0.5 * double(l1[i]), 0.0, 1.0);
    if (k == 0) {  // every block with a valid slot has a valid first one
      ++blocks_;
      tau_ += 1;
      survival = promised = 1;
    }
    survival *= accept;
    tau_ += survival;
    accepted_[size_t(k)] += accept;
    ++slots_[size_t(k)];
    const double w = double(slots.weights[size_t(at[i])]);
    weight_ += w;
    ce_ += w * double(ce[i]);
    l1_ += w * double(l1[i]);
    if (!confidence) continue;
    const double c = 1 / (1 + std::exp(-double(confidence[i])));
    confidence_error_ += w * std::abs(c - accept);
    confidence_bias_ += w * (c - accept);
    promised *= c;
    cumprod_bias_ += w * (promised - survival);
  }
}

void BlockMetrics::Add(const BlockMetrics& other) {
  std::vector<double> sums = Sums();
  const std::vector<double> more = other.Sums();
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
  SetSums(sums);
}

std::vector<double> BlockMetrics::Sums() const {
  std::vector<double> sums = {double(blocks_),   weight_,          tau_,         ce_, l1_,
                              confidence_error_, confidence_bias_, cumprod_bias_};
  sums.insert(sums.end(), accepted_.begin(), accepted_.end());
  sums.insert(sums.end(), slots_.begin(), slots_.end());
  return sums;
}

void BlockMetrics::SetSums(std::span<const double> sums) {
  DSPARK_CHECK_EQ(sums.size(), 8 + 2 * slots_.size());
  blocks_ = int64_t(sums[0]);
  double* const means[] = {&weight_,          &tau_,         &ce_, &l1_, &confidence_error_,
                           &confidence_bias_, &cumprod_bias_};
  for (size_t i = 0; i < std::size(means); ++i) *means[i] = sums[1 + i];
  for (size_t k = 0; k < slots_.size(); ++k) {
    accepted_[k] = sums[8 + k];
    slots_[k] = int64_t(sums[8 + slots_.size() + k]);
  }
}

void BlockMetrics::AddDraft(int k, double weight, double ce, double l1) {
  accepted_[size_t(k)] += std::clamp(1 - 0.5 * l1, 0.0, 1.0);
  ++slots_[size_t(k)];
  weight_ += weight;
  ce_ += weight * ce;
  l1_ += weight * l1;
}

void BlockMetrics::AddBlock(double tau) {
  ++blocks_;
  tau_ += tau;
}

int64_t BlockMetrics::slots() const { return std::accumulate(slots_.begin(), slots_.end(), int64_t{0}); }

double BlockMetrics::AcceptRate(int k) const {
  const int64_t n = slots_[size_t(k)];
  return n == 0 ? 0 : accepted_[size_t(k)] / double(n);
}

double BlockMetrics::Tau() const { return blocks_ == 0 ? 0 : tau_ / double(blocks_); }

}  // namespace dspark

// What is logged of a training run (drafters.md §4): sums over slots and blocks, so that steps add up.
#pragma once

#include <span>
#include <vector>

#include "train/anchors.h"

namespace dspark {

class BlockMetrics {
 public:
  explicit BlockMetrics(int gamma) : accepted_(size_t(gamma)), slots_(size_t(gamma)) {}

  // Values of the slots at indices `at` of `slots`: ce and l1 losses, confidence logits (empty without head).
  void Add(const BlockSlots& slots, std::span<const int64_t> at, const float* ce, const float* l1,
           const float* confidence);
  void Add(const BlockMetrics& other);
  // Everything, as numbers that add up: of processes that share a step.
  std::vector<double> Sums() const;
  void SetSums(std::span<const double> sums);  // what Sums() of the same γ gave
  // Of drafters that draft a token a step: one draft as slot k, and once for each row its expected tokens.
  void AddDraft(int k, double weight, double ce, double l1);
  void AddBlock(double tau);

  int gamma() const { return int(slots_.size()); }
  int64_t blocks() const { return blocks_; }
  int64_t slots() const;
  double AcceptRate(int k) const;  // mean of 1 - l1 / 2 over valid slots k
  double Tau() const;              // mean over blocks of 1 + Σ_j Π_{i <= j} (1 - l1 / 2)
  // Means over valid slots by their weights, as in the loss.
  double Ce() const { return Mean(ce_); }
  double L1() const { return Mean(l1_); }
  double ConfidenceError() const { return Mean(confidence_error_); }    // mean |c - c*|
  double ConfidenceBias() const { return Mean(confidence_bias_); }      // mean c - c*
  double ConfidenceCumprodBias() const { return Mean(cumprod_bias_); }  // mean Π_{i <= j} c - Π_{i <= j} c*

 private:
  double Mean(double sum) const { return weight_ == 0 ? 0 : sum / weight_; }

  std::vector<double> accepted_;
  std::vector<int64_t> slots_;
  int64_t blocks_ = 0;
  double weight_ = 0, tau_ = 0, ce_ = 0, l1_ = 0, confidence_error_ = 0, confidence_bias_ = 0,
         cumprod_bias_ = 0;
};

}  // namespace dspark

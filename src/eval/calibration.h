// How far a drafter's confidences can be believed, and Sequential Temperature Scaling, which mends them
// (drafters.md §9, §10; the paper's §3.2.1).
//
// The prediction at position k of a round is Π_{i ≤ k} σ(z_i / T_i): that drafts 1 … k + 1 are all kept. Its
// label is whether they were. σ is taken in fp32, the product in fp64 and clamped to [1e-8, 1 - 1e-8], as the
// reference does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

inline constexpr int kCalibrationBins = 20;  // of equal width; p falls into min(floor(20 p), 19)
inline constexpr int kAurocBins = 1000;

// One round: what the confidence head said of each draft, and what became of them.
struct ConfidenceRound {
  std::vector<float> logits;  // z, before any temperature; at least `verified` of them
  int verified = 0;           // drafts with a label
  int accepted = 0;           // of these, how many of the first were kept
  int committed = 0;          // tokens that came out of the round; of use to threshold sweeps only
};

struct ReliabilityPoint {
  int bin = 0;
  double predicted = 0, observed = 0;  // means of predictions and labels in the bin
  int64_t rounds = 0;
};

// NaN where undefined: everything without rounds, AUROC also where all labels are the same.
struct PositionCalibration {
  int64_t rounds = 0;
  double ece = 0, auroc = 0, brier = 0;
  double predicted = 0, observed = 0;         // means
  std::vector<ReliabilityPoint> reliability;  // bins that are not empty
};

// [k] for positions 0 … positions - 1. `temperatures` is empty (all 1) or has one for each position.
std::vector<PositionCalibration> MeasureCalibration(std::span<const ConfidenceRound> rounds, int positions,
                                                    std::span<const float> temperatures = {});

// Means over positions, weighted by their rounds; undefined figures are left out.
PositionCalibration SummarizeCalibration(std::span<const PositionCalibration> positions);

// T is searched for between 1 / kHottest and kHottest.
inline constexpr float kHottest = 5;
inline constexpr int kLeastRounds = 50, kLeastOutcomes = 10;

// T_1 … T_positions, one after the other: T_k gives the least ECE of the product up to k, with those before
// it fixed. Sought on 65 temperatures from 0.2 to 5 (evenly spaced in log T) and then twice on 17 finer ones
// around the best; of equally good ones the nearest to 1. A position that is not among CalibratedPositions
// keeps 1.
std::vector<float> FitTemperatures(std::span<const ConfidenceRound> rounds, int positions,
                                   int least_rounds = kLeastRounds);

// Whether [k] has what it takes: `least_rounds`, and kLeastOutcomes that kept draft k and kLeastOutcomes that
// kept those before it and lost it. Rounds that were lost before say nothing of T_k; an ECE of few is noise,
// and of outcomes that are all alike it asks for the end of the search.
std::vector<bool> CalibratedPositions(std::span<const ConfidenceRound> rounds, int positions,
                                      int least_rounds = kLeastRounds);

}  // namespace dspark

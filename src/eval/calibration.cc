#include "eval/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace dspark {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

double Sigmoid(float z) { return double(1 / (1 + std::exp(-z))); }

double Clamped(double p) { return std::clamp(p, 1e-8, 1 - 1e-8); }

template <size_t n>
size_t BinOf(double p) {
  return std::min(size_t(p * double(n)), n - 1);
}

// Sums over the predictions that fell into one bin.
struct Bin {
  int64_t rounds = 0;
  double predicted = 0, accepted = 0;
};
using Bins = std::array<Bin, kCalibrationBins>;

void Add(double p, bool accepted, Bins* bins) {
  Bin& bin = (*bins)[BinOf<kCalibrationBins>(p)];
  bin.rounds += 1;
  bin.predicted += p;
  bin.accepted += accepted;
}

// Σ n_b |mean prediction - mean label| / n.
double Ece(const Bins& bins) {
  double error = 0;
  int64_t rounds = 0;
  for (const Bin& bin : bins) {
    error += std::fabs(bin.predicted - bin.accepted);
    rounds += bin.rounds;
  }
  return rounds ? error / double(rounds) : kUndefined;
}

// P(a kept round's prediction exceeds another's), predictions of one bin being equal.
struct Histograms {
  std::array<int64_t, kAurocBins> kept{}, lost{};

  double Auroc() const {
    double pairs = 0, lost_below = 0, all_kept = 0;
    for (size_t b = 0; b < kAurocBins; ++b) {
      pairs += double(kept[b]) * (lost_below + 0.5 * double(lost[b]));
      lost_below += double(lost[b]);
      all_kept += double(kept[b]);
    }
    return all_kept > 0 && lost_below > 0 ? pairs / (all_kept * lost_below) : kUndefined;
  }
};

// One position's figures, prediction by prediction.
class PositionMeter {
 public:
  void Add(double p, bool accepted) {
    const double error = p - double(accepted);
    dspark::Add(p, accepted, &bins_);
    ++(accepted ? histograms_.kept : histograms_.lost)[BinOf<kAurocBins>(p)];
    squares_ += error * error;
  }

  PositionCalibration Figures() const {
    PositionCalibration c{.ece = Ece(bins_),
                          .auroc = histograms_.Auroc(),
                          .brier = kUndefined,
                          .predicted = kUndefined,
                          .observed = kUndefined,
                          .reliability = {}};
    double predicted = 0, accepted = 0;
    for (size_t b = 0; b < bins_.size(); ++b) {
      const Bin& bin = bins_[b];
      if (bin.rounds == 0) continue;
      const double n = double(bin.rounds);
      c.reliability.push_back({int(b), bin.predicted / n, bin.accepted / n, bin.rounds});
      c.rounds += bin.rounds;
      predicted += bin.predicted;
      accepted += bin.accepted;
    }
    if (c.rounds == 0) return c;
    c.brier = squares_ / double(c.rounds);
    c.predicted = predicted / double(c.rounds);
    c.observed = accepted / double(c.rounds);
    return c;
  }

 private:
  Bins bins_{};
  Histograms histograms_;
  double squares_ = 0;
};

// A round that has a label at the position under search.
struct Candidate {
  double prefix;  // the product up to the position before
  float logit;
  bool accepted;
};

double EceAt(std::span<const Candidate> candidates, double temperature) {
  Bins bins{};
  for (const Candidate& c : candidates)
    Add(Clamped(c.prefix * Sigmoid(c.logit / float(temperature))), c.accepted, &bins);
  return Ece(bins);
}

double BestTemperature(std::span<const Candidate> candidates) {
  double best = 0, best_ece = EceAt(candidates, 1);  // best: log T
  const auto search = [&](double low, double high, int steps) {
    for (int i = 0; i <= steps; ++i) {
      const double log_t = low + (high - low) * i / steps, ece = EceAt(candidates, std::exp(log_t));
      if (ece < best_ece || (ece == best_ece && std::fabs(log_t) < std::fabs(best))) {
        best = log_t;
        best_ece = ece;
      }
    }
  };
  const double range = std::log(double(kHottest));
  double step = 2 * range / 64;
  search(-range, range, 64);
  for (int refinement = 0; refinement < 2; ++refinement) {
    search(std::max(best - step, -range), std::min(best + step, range), 16);
    step /= 8;
  }
  return std::exp(best);
}

}  // namespace

std::vector<PositionCalibration> MeasureCalibration(std::span<const ConfidenceRound> rounds, int positions,
                                                    std::span<const float> temperatures) {
  std::vector<PositionMeter> meters(static_cast<size_t>(positions));
  for (const ConfidenceRound& round : rounds) {
    double product = 1;
    for (size_t k = 0; k < meters.size() && k < size_t(round.verified); ++k) {
      product *= Sigmoid(temperatures.empty() ? round.logits[k] : round.logits[k] / temperatures[k]);
      meters[k].Add(Clamped(product), round.accepted > int(k));
    }
  }
  std::vector<PositionCalibration> figures;
  figures.reserve(meters.size());
  for (const PositionMeter& meter : meters) figures.push_back(meter.Figures());
  return figures;
}

PositionCalibration SummarizeCalibration(std::span<const PositionCalibration> positions) {
  PositionCalibration mean;
  const auto average = [&](double PositionCalibration::*figure) {
    double sum = 0, weight = 0;
    for (const PositionCalibration& p : positions) {
      if (std::isnan(p.*figure)) continue;
      sum += p.*figure * double(p.rounds);
      weight += double(p.rounds);
    }
    mean.*figure = weight > 0 ? sum / weight : kUndefined;
  };
  for (auto figure : {&PositionCalibration::ece, &PositionCalibration::auroc, &PositionCalibration::brier,
                      &PositionCalibration::predicted, &PositionCalibration::observed}) {
    average(figure);
  }
  for (const PositionCalibration& p : positions) mean.rounds += p.rounds;
  return mean;
}

std::vector<bool> CalibratedPositions(std::span<const ConfidenceRound> rounds, int positions,
                                      int least_rounds) {
  std::vector<bool> calibrated;
  for (int k = 0; k < positions; ++k) {
    int labels = 0, kept = 0, lost = 0;
    for (const ConfidenceRound& round : rounds) {
      if (k >= round.verified) continue;
      ++labels;
      kept += round.accepted > k;
      lost += round.accepted == k;
    }
    calibrated.push_back(labels >= least_rounds && std::min(kept, lost) >= kLeastOutcomes);
  }
  return calibrated;
}

std::vector<float> FitTemperatures(std::span<const ConfidenceRound> rounds, int positions, int least_rounds) {
  std::vector<float> temperatures(size_t(positions), 1.0f);
  const std::vector<bool> calibrated = CalibratedPositions(rounds, positions, least_rounds);
  std::vector<double> prefixes(rounds.size(), 1.0);
  std::vector<Candidate> candidates;
  for (size_t k = 0; k < temperatures.size(); ++k) {
    candidates.clear();
    for (size_t r = 0; r < rounds.size(); ++r) {
      if (int(k) < rounds[r].verified)
        candidates.push_back({prefixes[r], rounds[r].logits[k], rounds[r].accepted > int(k)});
    }
    if (calibrated[k]) temperatures[k] = float(BestTemperature(candidates));
    for (size_t r = 0; r < rounds.size(); ++r) {
      if (int(k) < rounds[r].verified) prefixes[r] *= Sigmoid(rounds[r].logits[k] / temperatures[k]);
    }
  }
  return temperatures;
}

}  // namespace dspark

// Whether it pays to run a drafter that costs time: its price, and when a parked one is tried again.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

namespace dspark {

// Milliseconds of one proposing call by number of sequences, from what calls really took.
class DraftCost {
 public:
  // 0 while too little was seen.
  double Ms(int sequences) const;
  // Falls at once and rises slowly: calls that read a whole prompt first are not the rule. A single one,
  // which may be such a call, is not believed.
  void Observe(int sequences, double ms);

 private:
  // Until a number of sequences was seen: what a sequence more costs, as a share of one alone.
  static constexpr double kMarginal = 0.2;
  struct Level {
    double ms = 0;
    int seen = 0;
    bool known() const { return seen > 1; }
  };
  std::vector<Level> levels_;  // [sequences]
};

// A sequence whose drafts do not pay is due to try them again after 8 steps, then 32, 128 and every 512.
class DraftBackoff {
 public:
  // One step in which drafting does not seem to pay. True: it is time to see whether that still holds.
  bool Due() { return --wait_ <= 0; }
  // It was tried.
  void Tried() {
    wait_ = next_;
    next_ = next_ < kLongest ? 4 * next_ : kLongest;
  }
  // Drafting pays.
  void Reset() { wait_ = kShortest, next_ = 4 * kShortest; }

 private:
  static constexpr int kShortest = 8, kLongest = 512;
  int wait_ = kShortest, next_ = 4 * kShortest;
};

// What all sequences together may spend on trying drafts that do not seem to pay: a hundredth of the time, so
// that many parked sequences do not add up to a loss. A few tries are free at the start.
class TrialCredit {
 public:
  void Earn(double step_ms) { ms_ += kShare * step_ms; }
  bool Spend(double ms) {
    ms_ = std::min(ms_, kMost * ms);
    if (ms_ < ms) return false;
    ms_ -= ms;
    return true;
  }
  // A try took so much more than was spent on it: a debt that is earned back before the next.
  void Charge(double ms) { ms_ -= ms; }

 private:
  static constexpr double kShare = 0.01, kMost = 4;  // tries that can be saved up
  double ms_ = std::numeric_limits<double>::max();
};

}  // namespace dspark

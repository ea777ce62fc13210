// Whether it pays to run a drafter that costs time: its price, and when a parked one is tried again.
#pragma once

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

// A sequence whose drafts do not pay runs its drafter again after 8 steps, then 32, 128 and every 512.
class DraftBackoff {
 public:
  // One step in which drafting does not seem to pay. True: try all the same, to see whether that still holds.
  bool Tick() {
    if (--wait_ > 0) return false;
    wait_ = next_;
    next_ = next_ < kLongest ? 4 * next_ : kLongest;
    return true;
  }
  // Drafting pays.
  void Reset() { wait_ = kShortest, next_ = 4 * kShortest; }

 private:
  static constexpr int kShortest = 8, kLongest = 512;
  int wait_ = kShortest, next_ = 4 * kShortest;
};

}  // namespace dspark

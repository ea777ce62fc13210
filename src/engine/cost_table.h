// What a forward pass costs on this machine, with this model and thread count: milliseconds by number of
// rows, and what deep contexts add.
//
// Measured once in well under a second, kept in the user's cache directory, corrected by what steps really
// cost. The planner prices draft lengths with it, which is what keeps speculation from ever being slower than
// plain decoding.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "model/target.h"

namespace dspark {

class CostTable {
 public:
  struct Point {
    int rows = 0;
    double ms = 0;
  };

  CostTable() = default;
  // Contexts the points were measured at; DepthMs counts from here.
  static constexpr int kDepth = 64;

  // Points by increasing rows, all ms > 0. What a row costs more for each position of context behind kDepth.
  explicit CostTable(std::vector<Point> points, double ms_per_row_position = 0);

  // A point that costs more than a wider one is read as that; one that costs more than narrow passes in its
  // place, as those. Interpolated between points, proportional beyond the last one.
  double Ms(int rows) const;
  // What `rows` rows behind `context` positions cost beside that.
  double DepthMs(int rows, int context) const {
    return context > kDepth ? ms_per_row_position_ * rows * (context - kDepth) : 0;
  }
  double ms_per_row_position() const { return ms_per_row_position_; }
  // As they are read.
  const std::vector<Point>& points() const { return points_; }

  // A step of `rows` rows took `ms`, DepthMs not counted. The points beside it follow by nearness, fast where
  // it was far cheaper (nothing but the pass itself can make it so), else slowly; an outlier counts little.
  // Points no recent step came near go where these go: a table measured on a busy machine gets its level
  // right everywhere, though only some widths are run.
  void Observe(int rows, double ms);

  // The factors, 1 or more, by which the points that moved most have risen and fallen since the table was
  // made.
  struct Drift {
    double up = 1, down = 1;
  };
  Drift drift() const;

 private:
  double Nearness(size_t point, int rows) const;

  double ms_per_row_position_ = 0;
  std::vector<Point> points_;     // as read: `estimates_`, made plausible
  std::vector<Point> estimates_;  // each point's own slow running mean
  std::vector<Point> first_;      // as the table was made
  std::vector<double> stale_;     // of each point: 0 just observed … 1 not for many steps
};

// Runs verify-shaped passes, up to as many rows as one pass can have: one sequence's up to 8 rows, several
// sequences of 8 beyond. 1, 2, 4 and 8 rows are run once at least, unless one row alone takes more than 50 ms
// and a quarter of `budget_ms`; for `budget_ms` more widths and a deep context follow, then repetitions.
// Widths there was no time or memory for are no points of the table. A warm-up comes first. About 0.5 s for a
// small model and 64 rows, and the warm-up and `budget_ms` for a large one.
CostTable MeasureCosts(Target& target, BlockPool& blocks, double budget_ms = 600);

// The cache: one small JSON file per machine, model and settings. A missing or unreadable file is an Error
// and means: measure.
Result<CostTable> LoadCosts(const std::string& path);
Status SaveCosts(const std::string& path, const CostTable& table);

}  // namespace dspark

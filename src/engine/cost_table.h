// What a forward pass costs on this machine, with this model and thread count: milliseconds by number of
// rows.
//
// Measured once in well under a second, kept in the user's cache directory, refreshed by what steps really
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
  // Points by increasing rows, all ms > 0. The table is made monotone: more rows never cost less.
  explicit CostTable(std::vector<Point> points);

  // Interpolated between points, proportional beyond the last one.
  double Ms(int rows) const;
  const std::vector<Point>& points() const { return points_; }

  // A step of `rows` rows took `ms`: the table's level follows slowly, outliers count little.
  void Observe(int rows, double ms);

 private:
  std::vector<Point> points_;
  double level_ = 1;  // measured / tabulated, a slow running mean
};

// Runs verify-shaped passes of 1 … 64 rows at a short context, a few times each: about 0.3 s for a small
// model.
CostTable MeasureCosts(Target& target, BlockPool& blocks);

// The cache: one small JSON file per key (model file, size, threads, instruction set). A missing or
// unreadable file is an Error and means: measure.
Result<CostTable> LoadCosts(const std::string& path);
Status SaveCosts(const std::string& path, const CostTable& table);

}  // namespace dspark

#include "engine/cost_table.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

namespace dspark {
namespace {

constexpr int kWidths[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64};
constexpr int kDepth = 64;  // context before the measured rows

// Narrow passes decide draft lengths and are cheap to repeat; wide ones are neither.
int Repeats(int rows) { return rows <= 8 ? 5 : rows <= 16 ? 3 : 2; }

double TimeForward(Target& target, const Segment& segment) {
  const auto start = std::chrono::steady_clock::now();
  target.Forward({&segment, 1}, {});
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

CostTable::CostTable(std::vector<Point> points) : points_(std::move(points)) {
  for (size_t i = 0; i < points_.size(); ++i) {
    DSPARK_CHECK(points_[i].ms > 0 && (i == 0 || points_[i].rows > points_[i - 1].rows));
    if (i > 0) points_[i].ms = std::max(points_[i].ms, points_[i - 1].ms);
  }
}

double CostTable::Ms(int rows) const {
  DSPARK_CHECK(!points_.empty());
  const auto upper = std::lower_bound(points_.begin(), points_.end(), rows,
                                      [](const Point& p, int r) { return p.rows < r; });
  if (upper == points_.end()) return level_ * points_.back().ms * rows / points_.back().rows;
  if (upper->rows == rows || upper == points_.begin()) return level_ * upper->ms;
  const Point &a = upper[-1], &b = *upper;
  return level_ * (a.ms + (b.ms - a.ms) * (rows - a.rows) / (b.rows - a.rows));
}

void CostTable::Observe(int rows, double ms) {
  const double ratio = ms / (Ms(rows) / level_);
  level_ += 0.02 * (std::clamp(ratio, level_ / 2, level_ * 2) - level_);
}

CostTable MeasureCosts(Target& target, BlockPool& blocks) {
  const int widest = std::min(target.limits().max_rows, target.limits().max_logit_rows);
  // A short context, or a pool too small for the usual depth, is measured from an empty context.
  KvTable kv(blocks);
  const int context = target.limits().max_context;
  const int depth = context >= kDepth + widest && kv.Reserve(kDepth + widest) ? kDepth : 0;
  std::vector<int> widths;
  for (int rows : kWidths) {
    if (rows <= widest && depth + rows <= context && kv.Reserve(depth + rows)) widths.push_back(rows);
  }
  DSPARK_CHECK(!widths.empty());  // a pool holds one row at least
  std::vector<int32_t> tokens(std::max(depth, widths.back()), 1);
  if (depth > 0) {
    for (int done = 0; done < depth; done += target.limits().max_rows) {
      const int rows = std::min(depth - done, target.limits().max_rows);
      TimeForward(
          target,
          {.tokens = {tokens.data(), size_t(rows)}, .position = done, .kv = &kv, .logits_from = rows});
    }
  }
  // The least of several passes: what else the machine does only adds. All widths in turn; the first turn
  // warms up.
  std::vector<CostTable::Point> points;
  points.reserve(widths.size());
  for (const int rows : widths) points.push_back({rows, std::numeric_limits<double>::max()});
  for (int turn = 0; turn <= Repeats(1); ++turn) {
    for (auto& point : points) {
      if (turn > Repeats(point.rows) || (turn == 0 && point.rows > 8)) continue;
      const double ms =
          TimeForward(target, {.tokens = {tokens.data(), size_t(point.rows)}, .position = depth, .kv = &kv});
      if (turn > 0) point.ms = std::min(point.ms, std::max(ms, 1e-6));
    }
  }
  return CostTable(std::move(points));
}

Result<CostTable> LoadCosts(const std::string& path) {
  std::ifstream in(path);
  const auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!in || !json.is_object() || !json.contains("ms_by_rows") || !json["ms_by_rows"].is_array()) {
    return MakeError("{}: no cost table there; it will be measured", path);
  }
  std::vector<CostTable::Point> points;
  for (const auto& pair : json["ms_by_rows"]) {
    const bool valid =
        pair.is_array() && pair.size() == 2 && pair[0].is_number_integer() && pair[1].is_number();
    if (!valid) return MakeError("{}: not a cost table; delete it and it will be measured again", path);
    const CostTable::Point point{pair[0].get<int>(), pair[1].get<double>()};
    if (!(point.ms > 0) || point.rows <= (points.empty() ? 0 : points.back().rows)) {
      return MakeError("{}: not a cost table; delete it and it will be measured again", path);
    }
    points.push_back(point);
  }
  if (points.empty())
    return MakeError("{}: an empty cost table; delete it and it will be measured again", path);
  return CostTable(std::move(points));
}

Status SaveCosts(const std::string& path, const CostTable& table) {
  nlohmann::json pairs = nlohmann::json::array();
  for (const auto& point : table.points()) pairs.push_back({point.rows, point.ms});
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  const std::string temporary = fmt::format("{}.{}", path, getpid());
  std::ofstream out(temporary);
  out << nlohmann::json{{"ms_by_rows", pairs}}.dump() << "\n";
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::filesystem::remove(temporary, ignored);
    return MakeError("{}: cannot write the cost table; it will be measured again next time", path);
  }
  return {};
}

}  // namespace dspark

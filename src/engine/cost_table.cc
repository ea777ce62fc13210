#include "engine/cost_table.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/clock.h"

namespace dspark {
namespace {

// What says most about draft lengths comes first, and twice: time may run out.
constexpr int kWidths[] = {1, 2, 4, 8, 16, 3, 6, 12, 5, 7, 10, 32, 64, 24, 48, 96, 128, 192, 256, 384, 512};
int FirstTurn(int rows) { return rows <= 16 && std::has_single_bit(unsigned(rows)) ? 0 : 2; }
bool Indispensable(int rows) { return rows <= 8 && FirstTurn(rows) == 0; }

constexpr int kSegment = 8;  // rows of one sequence
constexpr int kDeep = 1024;  // the context that tells what depth costs

// Narrow passes decide draft lengths and are cheap to repeat; wide ones are neither.
int Repeats(int rows) { return rows <= 8 ? 5 : rows <= 16 ? 3 : 2; }

// Of a point towards an observation: what else the machine does makes passes dearer, nothing makes them
// cheaper. One far below the point says that the point was measured in a bad moment, others are noise: points
// that fell with each of those would favour whatever widths are run.
constexpr double kRateUp = 0.02, kRateDown = 0.05, kRateHeal = 0.5;
constexpr double kFarBelow = -0.3;   // as a logarithm
constexpr double kForget = 0.125;    // of a point's freshness, per step that did not come near it
constexpr double kOutOfSight = 0.9;  // staleness of a point that was not seen for 18 steps

// Sequences with made-up K/V, and passes over them.
class CostProbe {
 public:
  // Sequences of kSegment rows, or one of up to `widest` where the pool is too small for that many.
  CostProbe(Target& target, BlockPool& blocks, int widest) : target_(target), blocks_(blocks) {
    const int sequences = (widest + kSegment - 1) / kSegment;
    const int each = blocks.layout().BlocksFor(CostTable::kDepth + kSegment);
    most_ = sequences * each <= blocks.blocks() ? kSegment : widest;
    tokens_.assign(size_t(most_), 1);
  }

  // Makes room for passes of `rows` rows behind `depth` positions. False where pool or context are too small.
  bool Prepare(int rows, int depth) {
    const int each = std::min(rows, most_), sequences = (rows + most_ - 1) / most_;
    if (depth + each > target_.limits().max_context) return false;
    while (int(kv_.size()) < sequences) kv_.emplace_back(blocks_);
    for (int i = 0; i < sequences; ++i) {
      const size_t known = kv_[size_t(i)].blocks().size();
      if (!kv_[size_t(i)].Reserve(depth + each)) return false;
      // Pages that were never written would be read from one place in the cache.
      for (std::byte* block : kv_[size_t(i)].blocks().subspan(known))
        std::memset(block, 0x3c, blocks_.layout().BlockBytes());
    }
    return true;
  }
  double Time(int rows, int depth) {
    segments_.clear();
    for (int done = 0; done < rows; done += most_) {
      segments_.push_back({.tokens = std::span(tokens_).first(size_t(std::min(rows - done, most_))),
                           .position = depth,
                           .kv = &kv_[size_t(done / most_)]});
    }
    const double start = NowMs();
    target_.Forward(segments_, {});
    return std::max(NowMs() - start, 1e-6);
  }

 private:
  Target& target_;
  BlockPool& blocks_;
  int most_;  // rows of one sequence
  std::vector<int32_t> tokens_;
  std::vector<KvTable> kv_;
  std::vector<Segment> segments_;
};

// The least of several passes: what else the machine does only adds.
double DepthCost(CostProbe& probe, int depth, double end) {
  double shallow = std::numeric_limits<double>::max(), deep = shallow;
  for (int i = 0; i < 3 && NowMs() < end; ++i) {
    shallow = std::min(shallow, probe.Time(kSegment, depth));
    deep = std::min(deep, probe.Time(kSegment, kDeep));
  }
  return deep < std::numeric_limits<double>::max()
             ? std::max(0.0, (deep - shallow) / (kSegment * double(kDeep - depth)))
             : 0;
}

double Interpolate(std::span<const CostTable::Point> points, int rows) {
  DSPARK_CHECK(!points.empty());
  const auto upper = std::lower_bound(points.begin(), points.end(), rows,
                                      [](const CostTable::Point& p, int r) { return p.rows < r; });
  if (upper == points.end()) return points.back().ms * rows / points.back().rows;
  if (upper->rows == rows || upper == points.begin()) return upper->ms;
  const CostTable::Point &a = upper[-1], &b = *upper;
  return a.ms + (b.ms - a.ms) * (rows - a.rows) / (b.rows - a.rows);
}

// What the planner reads of estimates. Whatever disturbs a measurement makes it dearer, so the cheaper of two
// that contradict each other is right: a narrow pass never costs more than a wide one, nor a wide one more
// than narrow ones in its place.
void MakePlausible(std::vector<CostTable::Point>* points) {
  for (size_t i = points->size(); i-- > 1;)
    (*points)[i - 1].ms = std::min((*points)[i - 1].ms, (*points)[i].ms);
  for (CostTable::Point& point : *points)
    point.ms = std::min(point.ms, points->front().ms * point.rows / points->front().rows);
}

}  // namespace

CostTable::CostTable(std::vector<Point> points, double ms_per_row_position)
    : ms_per_row_position_(ms_per_row_position),
      points_(std::move(points)),
      estimates_(points_),
      first_(points_),
      stale_(points_.size(), 1.0) {
  for (size_t i = 0; i < points_.size(); ++i) {
    DSPARK_CHECK(points_[i].ms > 0 && (i == 0 || points_[i].rows > points_[i - 1].rows));
  }
  MakePlausible(&points_);
}

double CostTable::Ms(int rows) const { return Interpolate(points_, rows); }

// 1 at the point, falling to 0 at its neighbours; the first and last point stand for all rows beyond them.
double CostTable::Nearness(size_t point, int rows) const {
  const int at = points_[point].rows;
  if (rows == at) return 1;
  if (rows < at) {
    return point == 0 ? 1 : std::max(0.0, 1 - double(at - rows) / (at - points_[point - 1].rows));
  }
  if (point + 1 == points_.size()) return 1;
  return std::max(0.0, 1 - double(rows - at) / (points_[point + 1].rows - at));
}

void CostTable::Observe(int rows, double ms) {
  const double surprise = std::log(std::clamp(ms / Interpolate(estimates_, rows), 0.1, 2.0));
  const double rate = surprise > 0 ? kRateUp : surprise > kFarBelow ? kRateDown : kRateHeal;
  const double move = rate * surprise;
  double fresh = 0;  // points' worth of freshness: the nearness to `rows` alone adds up to 1
  for (size_t i = 0; i < stale_.size(); ++i) {
    stale_[i] = (1 - Nearness(i, rows)) * (stale_[i] + kForget * (1 - stale_[i]));
    fresh += 1 - stale_[i];
  }
  // What was out of sight goes where the points in sight go, each of which is heard as often as it is seen.
  // It must not follow the surprises themselves: they are a little above nought for ever, since points settle
  // near the cheapest steps, and widths that are not run would look dearer from step to step.
  for (size_t i = 0; i < estimates_.size(); ++i) {
    const double follow = stale_[i] > kOutOfSight ? 1 / fresh : 0;
    estimates_[i].ms *= std::exp(move * std::max(Nearness(i, rows), follow));
  }
  points_ = estimates_;
  MakePlausible(&points_);
}

CostTable::Drift CostTable::drift() const {
  Drift most;
  for (size_t i = 0; i < first_.size(); ++i) {
    most.up = std::max(most.up, estimates_[i].ms / first_[i].ms);
    most.down = std::max(most.down, first_[i].ms / estimates_[i].ms);
  }
  return most;
}

CostTable MeasureCosts(Target& target, BlockPool& blocks, double budget_ms) {
  const int widest = std::min(target.limits().max_rows, target.limits().max_logit_rows);
  CostProbe probe(target, blocks, widest);
  DSPARK_CHECK(probe.Prepare(1, 0));  // a pool holds one row at least
  // The first pass warms up: taken for the price of one row it would make more rows look free.
  const bool slow = probe.Time(1, 0) > std::max(50.0, budget_ms / 4);
  // A short context, or a pool too small for the usual depth, is measured from an empty context.
  const int depth = probe.Prepare(widest, CostTable::kDepth) ? CostTable::kDepth : 0;
  std::vector<CostTable::Point> points;  // in the order of measuring
  for (int rows : kWidths) {
    if (rows <= widest && probe.Prepare(rows, depth))
      points.push_back({rows, std::numeric_limits<double>::max()});
  }
  DSPARK_CHECK(!points.empty());

  // The least of several passes: what else the machine does only adds.
  const double end = NowMs() + budget_ms;
  double per_position = 0;
  for (int turn = 0; turn < Repeats(1) + 2; ++turn) {
    for (auto& point : points) {
      const int repeat = turn - FirstTurn(point.rows);
      const bool due = repeat >= 0 && repeat < Repeats(point.rows) && NowMs() < end;
      if (due || (turn == 0 && (point.rows == 1 || (!slow && Indispensable(point.rows))))) {
        point.ms = std::min(point.ms, probe.Time(point.rows, depth));
      }
    }
    if (turn == 0 && !slow && widest >= kSegment && probe.Prepare(kSegment, kDeep))
      per_position = DepthCost(probe, depth, end);
  }
  std::erase_if(points, [](const auto& point) { return point.ms == std::numeric_limits<double>::max(); });
  std::ranges::sort(points, {}, &CostTable::Point::rows);
  return CostTable(std::move(points), per_position);
}

Result<CostTable> LoadCosts(const std::string& path) {
  std::ifstream in(path);
  const auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!in || !json.is_object() || !json.contains("ms_by_rows") || !json["ms_by_rows"].is_array() ||
      !json.contains("ms_per_row_position") || !json["ms_per_row_position"].is_number()) {
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
  return CostTable(std::move(points), std::max(0.0, json["ms_per_row_position"].get<double>()));
}

Status SaveCosts(const std::string& path, const CostTable& table) {
  nlohmann::json pairs = nlohmann::json::array();
  for (const auto& point : table.points()) pairs.push_back({point.rows, point.ms});
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  const std::string temporary = fmt::format("{}.{}", path, getpid());
  std::ofstream out(temporary);
  out << nlohmann::json{{"ms_by_rows", pairs}, {"ms_per_row_position", table.ms_per_row_position()}}.dump()
      << "\n";
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::filesystem::remove(temporary, ignored);
    return MakeError("{}: cannot write the cost table; it will be measured again next time", path);
  }
  return {};
}

}  // namespace dspark

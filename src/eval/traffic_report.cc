#include "eval/traffic_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/report_page.h"
#include "eval/svg.h"

namespace dspark {
namespace {

using Figure = double LoadFigures::*;

std::vector<std::string> PoliciesOf(const TrafficResults& results) {
  std::vector<std::string> policies;
  for (const LoadPoint& point : results.points) {
    if (std::ranges::count(policies, point.policy) == 0) policies.push_back(point.policy);
  }
  return policies;
}

// One line for each policy, in order of load; what was not measured is left out.
std::vector<ChartSeries> SeriesOf(const TrafficResults& results, double (*x)(const LoadPoint&), Figure y) {
  std::vector<ChartSeries> all;
  for (const std::string& policy : PoliciesOf(results)) {
    std::vector<const LoadPoint*> points;
    for (const LoadPoint& point : results.points) {
      if (point.policy == policy) points.push_back(&point);
    }
    std::ranges::stable_sort(points, {}, [](const LoadPoint* point) { return point->Load(); });
    ChartSeries& series = all.emplace_back(ChartSeries{.style = int(all.size()), .points = {}});
    for (const LoadPoint* point : points) {
      const ChartPoint at{x(*point), point->figures.*y};
      if (std::isfinite(at.x) && std::isfinite(at.y)) series.points.push_back(at);
    }
  }
  return all;
}

double Most(const std::vector<ChartSeries>& series, double ChartPoint::*axis) {
  double most = 0;
  for (const ChartSeries& one : series) {
    for (const ChartPoint& point : one.points) most = std::max(most, point.*axis);
  }
  return most > 0 ? most : 1;
}

double UserSpeed(const LoadPoint& point) { return point.figures.user_tok_per_s; }
double LoadOf(const LoadPoint& point) { return point.Load(); }

// Loads double from one to the next, mostly.
ChartAxis LoadAxis(const TrafficResults& results) {
  ChartAxis axis{.label = "streams at once", .low = 1, .high = 2, .ticks = {}, .logarithmic = true};
  if (!results.points.empty() && results.points.front().concurrency == 0) axis.label = "requests per second";
  double low = std::numeric_limits<double>::max(), high = 0;
  for (const LoadPoint& point : results.points) {
    low = std::min(low, point.Load()), high = std::max(high, point.Load());
  }
  if (high <= 0) return axis;
  axis.low = low, axis.high = std::max(high, 1.01 * low);
  for (double tick = low; tick <= 1.001 * high; tick *= 2) axis.ticks.push_back(tick);
  return axis;
}

std::string Section(const std::string& heading, const std::string& caption, const std::string& body) {
  return fmt::format("<section><h2>{}</h2>\n<p class=\"caption\">{}</p>\n{}</section>\n", heading, caption,
                     body);
}

std::string ThroughputFigure(const TrafficResults& results) {
  LineChart chart{.title = "throughput against speed for one user", .x = {}, .y = {}, .series = {}};
  chart.width = 620, chart.height = 380;
  chart.series = SeriesOf(results, UserSpeed, &LoadFigures::tok_per_s);
  chart.x = AxisFromZero("tok/s of one user", Most(chart.series, &ChartPoint::x));
  chart.y = AxisFromZero("tok/s of all", Most(chart.series, &ChartPoint::y));
  return Section(
      "Throughput and speed (Figure 7)",
      "A point for each load, from the lowest at the right. Further up and to the right is better: at "
      "one speed for a user more users are served, or at one throughput each is served faster.",
      Legend(PoliciesOf(results)) + "<div class=\"charts\">" + RenderChart(chart) + "</div>\n");
}

std::string LoadChart(const TrafficResults& results, const std::string& title, Figure figure) {
  LineChart chart{.title = title, .x = LoadAxis(results), .y = {}, .series = {}};
  chart.width = 420, chart.height = 280;
  chart.series = SeriesOf(results, LoadOf, figure);
  chart.y = AxisFromZero(title, Most(chart.series, &ChartPoint::y));
  return RenderChart(chart);
}

std::string LoadFigure(const TrafficResults& results) {
  const auto measured = [](const LoadPoint& point) { return std::isfinite(point.figures.rows); };
  if (std::ranges::none_of(results.points, measured)) {
    return Section("Verify length and load (Figure 8)",
                   "Left out: it needs a server in this process, whose steps can be looked at.", "");
  }
  return Section(
      "Verify length and load (Figure 8)",
      "Drafts verified a round, and rows of a pass (the batch's tokens, prompts included), by load.",
      Legend(PoliciesOf(results)) + "<div class=\"charts\">" +
          LoadChart(results, "drafts verified a round", &LoadFigures::verify_length) +
          LoadChart(results, "rows of a pass", &LoadFigures::rows) +
          LoadChart(results, "tok/s of all", &LoadFigures::tok_per_s) + "</div>\n");
}

std::string Number(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "–";
}
std::string Percent(double value) { return std::isfinite(value) ? Number(100 * value, 1) + " %" : "–"; }
std::string Three(const Percentiles& p, int digits) {
  return fmt::format("{} / {} / {}", Number(p.p50, digits), Number(p.p90, digits), Number(p.p99, digits));
}

std::string Row(const LoadPoint& point, bool best) {
  const LoadFigures& f = point.figures;
  std::string html =
      fmt::format("<tr><td>{:g}</td><td class=\"t\">{}</td><td{}>{}</td>", point.Load(),
                  EscapeXml(point.policy), best ? " class=\"best\"" : "", Number(f.tok_per_s, 1));
  for (const std::string& cell :
       {Number(f.user_tok_per_s, 1), Three(f.ttft_ms, 0), Three(f.tpot_ms, 1), Number(f.verify_length, 2),
        Percent(f.acceptance), Number(f.tau, 2), Number(f.rows, 1), Percent(f.scheduling),
        Percent(f.drafting), Percent(f.outside), std::to_string(f.replies), std::to_string(f.errors)})
    html += "<td>" + cell + "</td>";
  return html + "</tr>";
}

std::string Table(const TrafficResults& results) {
  std::string html = "<div class=\"wide\"><table><thead><tr>";
  for (const char* head : {"load", "policy", "tok/s", "of a user", "first token, ms: median / 90 % / 99 %",
                           "per token, ms: median / 90 % / 99 %", "drafts verified", "kept", "τ", "rows",
                           "scheduling", "drafter", "outside steps", "replies", "errors"})
    html += fmt::format("<th>{}</th>", EscapeXml(head));
  html += "</tr></thead><tbody>";
  for (const LoadPoint& point : results.points) {
    const bool best = std::ranges::none_of(results.points, [&](const LoadPoint& other) {
      return other.Load() == point.Load() && other.figures.tok_per_s > point.figures.tok_per_s;
    });
    html += Row(point, best);
  }
  return html + "</tbody></table></div>\n";
}

std::string Settings(const TrafficResults& r) {
  std::string html = "<dl>";
  const auto entry = [&](const char* what, const std::string& value) {
    if (!value.empty()) html += fmt::format("<dt>{}</dt><dd>{}</dd>", what, EscapeXml(value));
  };
  entry("model", r.model);
  entry("machine", r.machine);
  entry("drafter", r.drafter);
  entry("prompts", r.prompts);
  entry("load", r.load);
  const std::string longest =
      r.max_tokens > 0 ? fmt::format("at most {} tokens", r.max_tokens) : std::string("as recorded");
  entry("replies", fmt::format("{}, temperature {:g}", longest, r.temperature));
  return html + "</dl>\n";
}

}  // namespace

std::string RenderTrafficReport(const TrafficResults& results) {
  const bool drafts = !results.drafter.empty() && results.drafter != "none";
  const std::string what = results.model + (drafts ? " with " + results.drafter : "");
  return PageHead(results.title + ": " + what, results.title) + Settings(results) +
         ThroughputFigure(results) + LoadFigure(results) +
         Section("All figures",
                 "Throughput: the median of the repetitions; the best of a load is marked. Scheduling: plan, "
                 "trim, accept and bookkeeping, as a share of the steps' time, as is the drafter. Outside "
                 "steps: messages, HTTP, and whatever else kept the engine from its next step, as a share of "
                 "all time.",
                 Table(results)) +
         "</body></html>\n";
}

}  // namespace dspark

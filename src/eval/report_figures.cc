#include "eval/report_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "eval/report_page.h"
#include "eval/svg.h"

namespace dspark {
namespace {

const std::vector<double> kTenths{0, 0.2, 0.4, 0.6, 0.8, 1};

std::string Section(std::string_view heading, std::string_view caption, std::string_view body) {
  return fmt::format("<section><h2>{}</h2>\n<p class=\"caption\">{}</p>\n{}</section>\n", heading, caption,
                     body);
}

std::string Charts(std::string_view svgs) { return fmt::format("<div class=\"charts\">{}</div>\n", svgs); }

// The drafter's suites of one domain, together.
SuiteResult Pooled(const DrafterResult& drafter, const std::string& domain) {
  SuiteResult pooled;
  for (const SuiteResult& suite : drafter.suites) {
    if (suite.domain != domain) continue;
    pooled.whole.Add(suite.OwnRounds());
    pooled.without_confidence.Add(suite.without_confidence);
    pooled.confidence.insert(pooled.confidence.end(), suite.confidence.begin(), suite.confidence.end());
  }
  return pooled;
}

std::vector<ConfidenceRound> AllRounds(const DrafterResult& drafter) {
  std::vector<ConfidenceRound> rounds;
  for (const SuiteResult& suite : drafter.suites)
    rounds.insert(rounds.end(), suite.confidence.begin(), suite.confidence.end());
  return rounds;
}

double MeanTau(const DrafterResult& drafter) {
  std::vector<Figures> suites;
  suites.reserve(drafter.suites.size());
  for (const SuiteResult& suite : drafter.suites) suites.push_back(FiguresOf(suite));
  return MeanFigures(suites).tau;
}

// A family: drafters alike in all but `x`, with at least two different values of it.
struct Family {
  std::string name;
  std::vector<ChartPoint> points;  // (x, mean τ), by x
};

std::vector<Family> FamiliesBy(const EvalResults& results, int DrafterTraits::*x, int DrafterTraits::*same,
                               const char* same_name) {
  std::map<std::string, Family> families;
  for (const DrafterResult& drafter : results.drafters) {
    const DrafterTraits& t = drafter.traits;
    if (t.layers == 0) continue;
    const std::string name = fmt::format("{}, {} {}", t.kind, same_name, t.*same);
    families[name].name = name;
    families[name].points.push_back({double(t.*x), MeanTau(drafter)});
  }
  std::vector<Family> several;
  for (auto& [name, family] : families) {
    std::ranges::stable_sort(family.points, {}, &ChartPoint::x);
    if (family.points.front().x < family.points.back().x) several.push_back(std::move(family));
  }
  return several;
}

std::string FamilyFigure(const std::vector<Family>& families, std::string_view heading,
                         std::string_view caption, std::string_view missing, const std::string& x_label) {
  if (families.empty()) return Section(heading, missing, "");
  double most = 1, low = 1e9, high = 0;
  LineChart chart{.title = "mean τ over suites", .x = {}, .y = {}, .series = {}, .width = 420, .height = 260};
  std::vector<std::string> names;
  for (const Family& family : families) {
    chart.series.push_back({int(names.size()), family.points});
    names.push_back(family.name);
    for (const ChartPoint& p : family.points) {
      if (std::isfinite(p.y)) most = std::max(most, p.y);
      low = std::min(low, p.x);
      high = std::max(high, p.x);
    }
  }
  chart.x = {x_label, low, high, WholeTicks(int(low), int(high))};
  chart.y = AxisFromZero("tokens per round", most);
  return Section(heading, caption, Legend(names) + Charts(RenderChart(chart)));
}

// Positions that get a chart: all of a short block, eight spread over a long one.
std::vector<int> ShownPositions(int block) {
  constexpr int kMost = 8;
  std::vector<int> shown;
  const int count = std::min(block, kMost);
  shown.reserve(kMost);
  for (int i = 0; i < count; ++i) shown.push_back(count < 2 ? 0 : i * (block - 1) / (count - 1));
  return shown;
}

ChartSeries ReliabilitySeries(int style, const PositionCalibration& p) {
  ChartSeries series{style, {}};
  for (const ReliabilityPoint& point : p.reliability)
    series.points.push_back({point.predicted, point.observed});
  return series;
}

std::string CalibrationTable(const std::vector<PositionCalibration>& before,
                             const std::vector<PositionCalibration>& after,
                             const std::vector<float>& temperatures) {
  const auto number = [](double v) { return std::isnan(v) ? std::string("–") : fmt::format("{:.3f}", v); };
  std::string html =
      "<div class=\"wide\"><table><thead><tr><th>position</th><th>rounds</th><th>ECE</th><th>AUROC</th>"
      "<th>Brier</th>";
  if (!after.empty()) html += "<th>T</th><th>ECE after</th><th>AUROC after</th><th>Brier after</th>";
  html += "</tr></thead><tbody>";
  for (size_t k = 0; k < before.size(); ++k) {
    html +=
        fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>", k + 1, before[k].rounds,
                    number(before[k].ece), number(before[k].auroc), number(before[k].brier));
    if (!after.empty()) {
      html += fmt::format("<td>{:.3f}</td><td>{}</td><td>{}</td><td>{}</td>", temperatures[k],
                          number(after[k].ece), number(after[k].auroc), number(after[k].brier));
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

std::string Reliability(const DrafterResult& drafter) {
  const DrafterTraits& t = drafter.traits;
  const std::vector<ConfidenceRound> rounds = AllRounds(drafter);
  const auto before = MeasureCalibration(rounds, t.block);
  std::vector<PositionCalibration> after;
  if (!t.temperatures.empty()) after = MeasureCalibration(rounds, t.block, t.temperatures);
  std::string charts;
  for (const int k : ShownPositions(t.block)) {
    LineChart chart{.title = fmt::format("position {}", k + 1),
                    .x = {"predicted", 0, 1, kTenths},
                    .y = {"kept", 0, 1, kTenths},
                    .diagonal = true,
                    .series = {ReliabilitySeries(0, before[size_t(k)])},
                    .width = 220,
                    .height = 220};
    if (!after.empty()) chart.series.push_back(ReliabilitySeries(1, after[size_t(k)]));
    charts += RenderChart(chart);
  }
  std::string html = fmt::format("<h3>{}</h3>\n", EscapeXml(drafter.name));
  html += after.empty() ? "<p class=\"caption\">No temperatures are stored with this drafter: "
                          "<code>dspark calibrate</code> finds them.</p>\n"
                        : Legend({"before (T = 1)", "after temperature scaling"});
  return html + Charts(charts) + CalibrationTable(before, after, t.temperatures);
}

bool HasConfidence(const DrafterResult& drafter) {
  return drafter.traits.confidence && !AllRounds(drafter).empty();
}

constexpr char kNoConfidence[] =
    "Left out: none of the drafters has a confidence head (DSpark's), or no round was recorded.";

std::string Thresholds(const DrafterResult& drafter, const std::vector<std::string>& domains) {
  LineChart rate{.title = "verify rate",
                 .x = {"threshold", 0, 1, kTenths},
                 .y = {"tokens per verified row", 0, 1, kTenths},
                 .series = {},
                 .width = 360,
                 .height = 250};
  LineChart tau = rate;
  tau.title = "τ";
  double most = 1;
  std::vector<std::string> names;
  for (const std::string& domain : domains) {
    const SuiteResult pooled = Pooled(drafter, domain);
    if (pooled.confidence.empty()) continue;
    const int style = int(names.size());
    names.push_back(domain);
    rate.series.push_back({style, {}});
    tau.series.push_back({style, {}});
    for (const SweepPoint& p :
         SweepThresholds(pooled.confidence, pooled.without_confidence, drafter.traits.temperatures)) {
      rate.series.back().points.push_back({p.threshold, p.stats.VerifyRate()});
      tau.series.back().points.push_back({p.threshold, p.stats.Tau()});
      most = std::max(most, p.stats.Tau());
    }
  }
  tau.y = AxisFromZero("tokens per round", most);
  return fmt::format("<h3>{}</h3>\n", EscapeXml(drafter.name)) + Legend(names) +
         Charts(RenderChart(rate) + RenderChart(tau));
}

}  // namespace

std::string ConditionalFigure(const EvalResults& results) {
  size_t positions = 1;
  std::vector<std::string> names;
  for (const DrafterResult& drafter : results.drafters) {
    names.push_back(drafter.name);
    for (const SuiteResult& suite : drafter.suites)
      positions = std::max(positions, suite.OwnRounds().verified_at.size());
  }
  std::string charts;
  for (const std::string& domain : DomainsOf(results)) {
    LineChart chart{.title = domain,
                    .x = {"position", 1, double(positions), WholeTicks(1, int(positions))},
                    .y = {"kept, given all before", 0, 1, kTenths},
                    .series = {},
                    .width = 350,
                    .height = 240};
    for (size_t d = 0; d < results.drafters.size(); ++d) {
      ChartSeries& series = chart.series.emplace_back();
      series.style = int(d);
      const AcceptanceStats whole = Pooled(results.drafters[d], domain).whole;
      const std::vector<double> rates = whole.Conditional();
      for (size_t k = 0; k < rates.size(); ++k) {
        if (whole.reached_at[k] >= kFewRounds) series.points.push_back({double(k + 1), rates[k]});
      }
    }
    charts += RenderChart(chart);
  }
  return Section(
      "Conditional acceptance by position (Figure 2)",
      fmt::format(
          "The share of rounds that kept a draft, of those that kept all drafts before it; suites of a "
          "domain pooled. Rounds that prompt lookup drafted beside a trained drafter are left out, and "
          "positions that fewer than {} rounds reached.",
          kFewRounds),
      Legend(names) + Charts(charts));
}

std::string DepthFigure(const EvalResults& results) {
  return FamilyFigure(
      FamiliesBy(results, &DrafterTraits::layers, &DrafterTraits::block, "block"), "Drafter depth (Figure 3)",
      "Drafters of one kind and block length.",
      "Left out: it needs drafters of one kind and block length that differ in their number of layers.",
      "layers");
}

std::string BlockFigure(const EvalResults& results) {
  return FamilyFigure(FamiliesBy(results, &DrafterTraits::block, &DrafterTraits::layers, "layers"),
                      "Block length (Figure 4)", "Drafters of one kind and depth.",
                      "Left out: it needs drafters of one kind and depth that differ in their block length.",
                      "drafts a round");
}

std::string ThresholdFigure(const EvalResults& results) {
  std::string body;
  for (const DrafterResult& drafter : results.drafters) {
    if (HasConfidence(drafter)) body += Thresholds(drafter, DomainsOf(results));
  }
  return Section("Static confidence threshold (Figure 5)",
                 body.empty()
                     ? kNoConfidence
                     : "Drafts from the first whose confidence is below the threshold on are not "
                       "verified. Computed from the recorded rounds of whole blocks, each cut as the "
                       "threshold would have cut it; nothing was run again. Rounds without "
                       "confidences count as they were.",
                 body);
}

std::string ReliabilityFigure(const EvalResults& results) {
  std::string body;
  for (const DrafterResult& drafter : results.drafters) {
    if (HasConfidence(drafter)) body += Reliability(drafter);
  }
  return Section("Reliability of the confidences (Figure 6)",
                 body.empty()
                     ? kNoConfidence
                     : "Predicted and observed probability that all drafts up to a position are kept, "
                       "in 20 bins; all suites pooled. On the diagonal the drafter is as sure as it "
                       "should be.",
                 body);
}

}  // namespace dspark

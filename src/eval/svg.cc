#include "eval/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

// Where the plot lies inside the picture.
constexpr double kLeft = 44, kRight = 10, kTop = 26, kBottom = 40;

struct Frame {
  const LineChart& chart;
  double X(double x) const { return At(x, chart.x, kLeft, chart.width - kRight); }
  double Y(double y) const { return At(y, chart.y, chart.height - kBottom, kTop); }

 private:
  static double Scale(double value, const ChartAxis& axis) {
    return axis.logarithmic ? std::log(std::max(value, axis.low)) : value;
  }
  static double At(double value, const ChartAxis& axis, double from, double to) {
    const double low = Scale(axis.low, axis), span = Scale(axis.high, axis) - low;
    const double share = span > 0 ? (Scale(value, axis) - low) / span : 0;
    return from + (to - from) * std::clamp(share, 0.0, 1.0);
  }
};

std::string Line(double x1, double y1, double x2, double y2, std::string_view style) {
  return fmt::format(R"(<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>)", style, x1, y1,
                     x2, y2);
}

std::string Text(double x, double y, std::string_view style, std::string_view text) {
  return fmt::format(R"(<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>)", style, x, y, EscapeXml(text));
}

std::string Axes(const Frame& f) {
  const LineChart& c = f.chart;
  const double left = kLeft, right = c.width - kRight, bottom = c.height - kBottom;
  std::string svg;
  for (const double tick : c.y.ticks) {
    svg += Line(left, f.Y(tick), right, f.Y(tick), "grid");
    svg += Text(left - 6, f.Y(tick) + 4, "ytick", fmt::format("{:g}", tick));
  }
  for (const double tick : c.x.ticks) svg += Text(f.X(tick), bottom + 15, "xtick", fmt::format("{:g}", tick));
  svg += Line(left, bottom, right, bottom, "axis");
  svg += Text((left + right) / 2, c.height - 6, "xtick", c.x.label);
  svg += fmt::format(R"svg(<text class="xtick" transform="translate(12 {:.1f}) rotate(-90)">{}</text>)svg",
                     (kTop + bottom) / 2, EscapeXml(c.y.label));
  return svg + Text((left + right) / 2, 15, "title", c.title);
}

std::string Curve(const Frame& f, const ChartSeries& series) {
  const int style = series.style % kSeriesStyles;
  std::string path, dots;
  bool pen_down = false;
  for (const ChartPoint& p : series.points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
      pen_down = false;
      continue;
    }
    const double x = f.X(p.x), y = f.Y(p.y);
    path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x, y);
    dots += fmt::format(R"(<circle class="d{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>)", style, x, y);
    pen_down = true;
  }
  return path.empty() ? "" : fmt::format(R"(<path class="s{}" d="{}"/>)", style, path) + dots;
}

}  // namespace

std::string RenderChart(const LineChart& chart) {
  const Frame frame{chart};
  std::string svg =
      fmt::format(R"(<svg role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">)",
                  EscapeXml(chart.title), chart.width, chart.height, chart.width, chart.height);
  svg += Axes(frame);
  if (chart.diagonal) {
    svg += Line(frame.X(chart.x.low), frame.Y(chart.y.low), frame.X(chart.x.high), frame.Y(chart.y.high),
                "diagonal");
  }
  for (const ChartSeries& series : chart.series) svg += Curve(frame, series);
  return svg + "</svg>";
}

std::string RenderLineSample(int style) {
  return fmt::format(
      R"(<svg class="sample" width="26" height="10"><path class="s{0}" d="M1 5L25 5"/><circle class="d{0}" cx="13" cy="5" r="2.6"/></svg>)",
      style % kSeriesStyles);
}

std::vector<double> WholeTicks(int low, int high) {
  const int step = std::max(1, (high - low + 9) / 10);
  std::vector<double> ticks;
  for (int tick = low; tick <= high; tick += step) ticks.push_back(tick);
  return ticks;
}

ChartAxis AxisFromZero(std::string label, double value) {
  const double power = std::pow(10, std::floor(std::log10(value)));
  double high = 10 * power;
  for (const double factor : {8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0}) {
    if (factor * power >= value) high = factor * power;
  }
  ChartAxis axis{.label = std::move(label), .low = 0, .high = high, .ticks = {}};
  for (int i = 0; i <= 5; ++i) axis.ticks.push_back(high * i / 5);
  return axis;
}

std::string EscapeXml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    }
  }
  return escaped;
}

// Eight hues that stay apart for colour-blind readers; dashes from the fifth on.
std::string_view ChartStyleSheet() {
  return R"(:root{--c0:#0b63b5;--c1:#c4450c;--c2:#0f8a5f;--c3:#9a3d93;--c4:#8a6d00;--c5:#3f7f93;--c6:#b3264a;--c7:#5a5a5a}
@media (prefers-color-scheme:dark){:root{--c0:#6cb4f5;--c1:#f39060;--c2:#5fd0a4;--c3:#dc93d6;--c4:#dcc04a;--c5:#86cbe0;--c6:#f58aa4;--c7:#bdbdbd}}
svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
svg .title{font-weight:600;font-size:12px;text-anchor:middle}
svg .xtick{text-anchor:middle}svg .ytick{text-anchor:end}
svg .grid{stroke:var(--rule);stroke-width:1}svg .axis{stroke:var(--soft);stroke-width:1}
svg .diagonal{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
svg path{fill:none;stroke-width:2;stroke-linejoin:round}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}
.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}.s7{stroke:var(--c7)}
.s4,.s5,.s6,.s7{stroke-dasharray:5 3}
.d0{fill:var(--c0)}.d1{fill:var(--c1)}.d2{fill:var(--c2)}.d3{fill:var(--c3)}
.d4{fill:var(--c4)}.d5{fill:var(--c5)}.d6{fill:var(--c6)}.d7{fill:var(--c7)}
)";
}

}  // namespace dspark

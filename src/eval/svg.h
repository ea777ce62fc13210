// Line charts as inline SVG for the report, in colours that its style sheet sets for light and dark pages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dspark {

inline constexpr int kSeriesStyles = 8;  // classes s0 … s7

struct ChartPoint {
  double x = 0, y = 0;  // a point that is not finite interrupts the line
};

struct ChartSeries {
  int style = 0;  // taken modulo kSeriesStyles
  std::vector<ChartPoint> points;
};

struct ChartAxis {
  std::string label;
  double low = 0, high = 1;
  std::vector<double> ticks;
  bool logarithmic = false;  // 0 < low
};

struct LineChart {
  std::string title;
  ChartAxis x, y;
  bool diagonal = false;  // a thin line from corner to corner
  std::vector<ChartSeries> series;
  int width = 300, height = 220;
};

// One <svg> element. What lies outside the axes is drawn at their ends.
std::string RenderChart(const LineChart& chart);

// A short piece of the line of a style, for legends.
std::string RenderLineSample(int style);

// Whole numbers from `low` to `high`, at most about ten of them.
std::vector<double> WholeTicks(int low, int high);

// The smallest of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 × 10^n that is at least `value` > 0, and five ticks up to it.
ChartAxis AxisFromZero(std::string label, double value);

// Text between tags or in an attribute; bytes that XML does not allow become spaces.
std::string EscapeXml(std::string_view text);

// The rules that RenderChart's classes need.
std::string_view ChartStyleSheet();

}  // namespace dspark

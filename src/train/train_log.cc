#include "train/train_log.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "core/atomic_file.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

// A file's name may hold what HTML takes for its own.
std::string Escaped(const std::string& text) {
  std::string html;
  for (const char c : text) html += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return html;
}

Json LineOf(const StepReport& r, int gamma, double seconds) {
  Json accept = Json::array();
  for (int k = 0; k < gamma; ++k) accept.push_back(r.metrics.AcceptRate(k));
  return {{"step", r.step},
          {"loss", r.loss},
          {"tau_probabilistic", r.metrics.Tau()},
          {"accept_rate", accept},
          {"ce_loss", r.metrics.Ce()},
          {"l1_loss", r.metrics.L1()},
          {"confidence_abs_error", r.metrics.ConfidenceError()},
          {"confidence_bias", r.metrics.ConfidenceBias()},
          {"confidence_cumprod_bias", r.metrics.ConfidenceCumprodBias()},
          {"lr", r.learning_rate},
          {"grad_norm", r.grad_norm},
          {"anchors", r.anchors},
          {"positions", r.positions},
          {"source_ms", r.source_ms},
          {"train_ms", r.train_ms},
          {"optimizer_ms", r.optimizer_ms},
          {"exchange_ms", r.exchange_ms},
          {"seconds", seconds}};
}

std::string Duration(double seconds) {
  const auto minutes = int64_t(seconds / 60);
  if (minutes == 0) return fmt::format("{:.0f} s", seconds);
  return minutes < 60 ? fmt::format("{} min", minutes)
                      : fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

struct Series {
  std::string name;
  std::vector<double> x, y;
};

constexpr int kWidth = 760, kHeight = 240, kLeft = 76, kTop = 14;
constexpr const char* kColours[] = {"#1f6fb4", "#d1603d", "#3a8f4d", "#8a5aa8",
                                    "#b08a1e", "#4d9fa6", "#a83e6b", "#666666"};

// Means of neighbouring steps, so that long runs stay readable.
Series Thinned(const Series& all) {
  constexpr size_t kPoints = 300;
  const size_t n = all.x.size(), each = std::max<size_t>(1, (n + kPoints - 1) / kPoints);
  Series thin{all.name, {}, {}};
  for (size_t i = 0; i < n; i += each) {
    const size_t end = std::min(n, i + each);
    double x = 0, y = 0;
    for (size_t j = i; j < end; ++j) x += all.x[j], y += all.y[j];
    thin.x.push_back(x / double(end - i));
    thin.y.push_back(y / double(end - i));
  }
  return thin;
}

struct Scale {
  double low, high;
  double At(double v) const { return high > low ? (v - low) / (high - low) : 0.5; }
};

Scale ScaleOf(const std::vector<Series>& series, std::vector<double> Series::*values) {
  Scale s{1e300, -1e300};
  for (const Series& one : series) {
    for (const double v : one.*values) s = {std::min(s.low, v), std::max(s.high, v)};
  }
  return s.low <= s.high ? s : Scale{0, 1};
}

std::string Line(const Series& s, const Scale& x, const Scale& y, const char* colour) {
  std::string points;
  for (size_t i = 0; i < s.x.size(); ++i) {
    points += fmt::format("{:.1f},{:.1f} ", kLeft + x.At(s.x[i]) * (kWidth - kLeft - 10),
                          kTop + (1 - y.At(s.y[i])) * (kHeight - kTop - 30));
  }
  return fmt::format("<polyline fill='none' stroke='{}' stroke-width='1.6' points='{}'/>\n", colour, points);
}

std::string Chart(const std::string& title, std::vector<Series> series) {
  for (Series& s : series) s = Thinned(s);
  const Scale x = ScaleOf(series, &Series::x), y = ScaleOf(series, &Series::y);
  std::string svg =
      fmt::format("<h2>{}</h2>\n<svg viewBox='0 0 {} {}' role='img'>\n", title, kWidth, kHeight);
  for (int i = 0; i <= 4; ++i) {
    const double at = kTop + (1 - i / 4.0) * (kHeight - kTop - 30);
    svg += fmt::format(
        "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='#ddd'/>"
        "<text x='{}' y='{:.1f}' text-anchor='end'>{:.4g}</text>\n",
        kLeft, kWidth - 10, at, at, kLeft - 6, at + 4, y.low + (y.high - y.low) * i / 4);
  }
  for (size_t i = 0; i < series.size(); ++i) svg += Line(series[i], x, y, kColours[i % std::size(kColours)]);
  svg += fmt::format(
      "<text x='{}' y='{}'>step {:.0f}</text><text x='{}' y='{}' text-anchor='end'>step {:.0f}"
      "</text>\n</svg>\n<p>",
      kLeft, kHeight - 8, x.low, kWidth - 10, kHeight - 8, x.high);
  for (size_t i = 0; i < series.size(); ++i) {
    svg += fmt::format("<span style='color:{}'>&#9632; {}</span> &nbsp;", kColours[i % std::size(kColours)],
                       series[i].name);
  }
  return svg + "</p>\n";
}

Series SeriesOf(const std::vector<Json>& lines, const std::string& name, const Json::json_pointer& key) {
  Series s{name, {}, {}};
  for (const Json& line : lines) {
    if (!line.contains(key)) continue;
    s.x.push_back(line["step"].get<double>());
    s.y.push_back(line[key].get<double>());
  }
  return s;
}

}  // namespace

std::string ProgressLine(const StepReport& r, int64_t total, double seconds, double seconds_left) {
  std::string accept;
  for (int k = 0; k < r.metrics.gamma(); ++k) accept += fmt::format(" {:.2f}", r.metrics.AcceptRate(k));
  return fmt::format(
      "step {}/{}  loss {:.4f}  τ {:.3f}  accept{}  {:.0f} anchors/s  {:.0f} positions/s  {} left", r.step,
      total, r.loss, r.metrics.Tau(), accept, double(r.anchors) / seconds, double(r.positions) / seconds,
      Duration(seconds_left));
}

Result<TrainLog> TrainLog::Open(const std::string& dir, int64_t step, const std::string& what) {
  TrainLog log(dir, what);
  std::ifstream file(dir + "/train.jsonl");
  std::string text;
  while (std::getline(file, text)) {
    const Json line = Json::parse(text, nullptr, false);  // the last one may be half written
    if (line.is_object() && line.value("step", int64_t{0}) <= step && line.contains("step"))
      log.lines_.push_back(line);
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile kept, AtomicFile::Create(dir + "/train.jsonl"));
  for (const Json& line : log.lines_) kept.Write(line.dump() + "\n");
  DSPARK_RETURN_IF_ERROR(kept.Commit());
  return log;
}

Status TrainLog::Add(const StepReport& report, double seconds) {
  lines_.push_back(LineOf(report, report.metrics.gamma(), seconds));
  std::ofstream file(dir_ + "/train.jsonl", std::ios::app);
  file << lines_.back().dump() << "\n" << std::flush;
  if (!file) return MakeError("{}/train.jsonl: cannot be written; is the disk full?", dir_);
  return {};
}

Status TrainLog::WriteHtml() const {
  const auto series = [&](const std::string& name, const std::string& key) {
    return SeriesOf(lines_, name, Json::json_pointer("/" + key));
  };
  std::string html = fmt::format(
      "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>dspark train: {}</title><style>",
      Escaped(what_));
  html +=
      "body{font:14px system-ui,sans-serif;max-width:800px;margin:2em auto;color:#222}"
      "svg{width:100%}text{font-size:11px;fill:#555}h2{font-size:15px;margin:1.6em 0 "
      ".3em}</style></head><body>\n"
      "<h1>Training curves</h1>\n";
  html += fmt::format("<p>{}</p>\n", Escaped(what_));
  html +=
      Chart("Loss", {series("total", "loss"), series("cross-entropy", "ce_loss"), series("L1", "l1_loss")});
  html += Chart("Tokens a round would commit (τ, probabilistic)", {series("τ", "tau_probabilistic")});
  std::vector<Series> accept;
  const size_t gamma = lines_.empty() ? 0 : lines_.back().value("accept_rate", Json::array()).size();
  for (size_t k = 0; k < gamma; ++k)
    accept.push_back(series(fmt::format("slot {}", k), fmt::format("accept_rate/{}", k)));
  html += Chart("Acceptance of each slot", accept);
  html += Chart("Confidence: mean error against acceptance",
                {series("|c - c*|", "confidence_abs_error"), series("c - c*", "confidence_bias"),
                 series("of the products up to a slot", "confidence_cumprod_bias")});
  html += Chart("Gradient norm before clipping", {series("norm", "grad_norm")});
  html += Chart("Learning rate", {series("rate", "lr")});
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(dir_ + "/train.html"));
  file.Write(html + "</body></html>\n");
  return file.Commit();
}

}  // namespace dspark

#include "eval/traffic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "load/printable.h"

namespace dspark {
namespace {

constexpr double kMostSeconds = 1e6;
constexpr int kMostTokens = 1 << 20;

// Where a line of a trace is, for its errors.
struct Line {
  const std::string& path;
  int number;
  template <class... Args>
  Error Fail(fmt::format_string<Args...> format, Args&&... args) const {
    return MakeError("{}:{}: {}", path, number, fmt::format(format, std::forward<Args>(args)...));
  }
};

// Sets the field of that name. Error: out of range; or there is no such field.
Status SetNumber(const Line& line, const std::string& name, double value, Arrival* arrival) {
  const bool time = name == "at_s";
  if (!time && name != "prompt_tokens" && name != "max_tokens")
    return line.Fail("unknown field '{}'; there are at_s, prompt_tokens and max_tokens", Printable(name));
  const bool whole = time || value == std::floor(value);
  if (!(value >= (time ? 0 : 1)) || value > (time ? kMostSeconds : kMostTokens) || !whole)
    return line.Fail("{} is {}; it must be {} from {} to {}", name, value,
                     time ? "seconds" : "a whole number", time ? 0 : 1, time ? kMostSeconds : kMostTokens);
  if (time) {
    arrival->at_ms = 1000 * value;
  } else {
    (name == "max_tokens" ? arrival->max_tokens : arrival->prompt_tokens) = int(value);
  }
  return {};
}

Result<Arrival> ParseJsonLine(const Line& line, const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("at_s"))
    return line.Fail(R"(not an object with at_s, such as {{"at_s": 0.5, "prompt_tokens": 100}})");
  Arrival arrival;
  for (const auto& [name, value] : json.items()) {
    if (name == "prompt") {
      if (!value.is_string() || value.get_ref<const std::string&>().empty())
        return line.Fail("prompt is no text");
      arrival.prompt = value;
    } else if (!value.is_number()) {
      return line.Fail("{} is no number", Printable(name));
    } else {
      DSPARK_RETURN_IF_ERROR(SetNumber(line, name, value.get<double>(), &arrival));
    }
  }
  return arrival;
}

std::vector<std::string> SplitCells(const std::string& text) {
  std::vector<std::string> cells{""};
  for (const char c : text) {
    if (c == ',') {
      cells.emplace_back();
    } else if (c != ' ' && c != '\t' && c != '\r') {
      cells.back() += c;
    }
  }
  return cells;
}

Result<Arrival> ParseCsvLine(const Line& line, const std::vector<std::string>& names,
                             const std::string& text) {
  const std::vector<std::string> cells = SplitCells(text);
  if (cells.size() != names.size())
    return line.Fail("{} columns, and the first line names {}", cells.size(), names.size());
  Arrival arrival;
  for (size_t i = 0; i < cells.size(); ++i) {
    const char* end = cells[i].data() + cells[i].size();
    double value = 0;
    const auto parsed = std::from_chars(cells[i].data(), end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end)
      return line.Fail("{} is '{}', which is no number", names[i], Printable(cells[i]));
    DSPARK_RETURN_IF_ERROR(SetNumber(line, names[i], value, &arrival));
  }
  return arrival;
}

Result<std::vector<Arrival>> ParseTrace(const std::string& path, std::istream& in) {
  const bool csv = path.ends_with(".csv");
  std::vector<std::string> names;
  std::vector<Arrival> arrivals;
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    const Line line{path, number};
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (csv && names.empty()) {
      names = SplitCells(text);
      if (std::ranges::count(names, "at_s") != 1)
        return line.Fail("the first line names no column at_s; write at_s,prompt_tokens,max_tokens");
      continue;
    }
    DSPARK_ASSIGN_OR_RETURN(Arrival arrival,
                            csv ? ParseCsvLine(line, names, text) : ParseJsonLine(line, text));
    arrivals.push_back(std::move(arrival));
  }
  return arrivals;
}

}  // namespace

std::vector<Arrival> PoissonArrivals(double per_second, double seconds, uint64_t seed) {
  DSPARK_CHECK(per_second > 0);
  std::vector<Arrival> arrivals;
  double at_ms = 0;
  for (uint64_t i = 0;; ++i) {
    at_ms -= 1000 * std::log1p(-UniformDouble(seed, i, Purpose::kBonus)) / per_second;
    if (at_ms >= 1000 * seconds) return arrivals;
    arrivals.push_back({.at_ms = at_ms});
  }
}

std::vector<Arrival> BackToBack(int count) { return std::vector<Arrival>(size_t(count)); }

Result<std::vector<Arrival>> ReadTrace(const std::string& path) {
  std::ifstream in(path);
  if (!in) return MakeError("{}: cannot be read", path);
  DSPARK_ASSIGN_OR_RETURN(std::vector<Arrival> arrivals, ParseTrace(path, in));
  if (arrivals.empty()) return MakeError("{}: no request in it; write one a line", path);
  std::ranges::stable_sort(arrivals, {}, &Arrival::at_ms);
  const double first = arrivals.front().at_ms;
  for (Arrival& arrival : arrivals) arrival.at_ms -= first;
  return arrivals;
}

std::string TextOfLength(const std::string& source, int tokens, size_t offset) {
  DSPARK_CHECK(!source.empty());
  std::string text;
  text.reserve(size_t(tokens) * 4);
  for (size_t i = 0; i < size_t(tokens) * 4; ++i) text += source[(offset + i) % source.size()];
  return text;
}

}  // namespace dspark

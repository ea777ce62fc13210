#include "data/tap_choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace dspark {

std::vector<int> AutoTaps(int layers) {
  const bool deep = layers >= 8;
  const int first = deep ? 1 : 0, last = deep ? layers - 3 : layers - 2;
  const int n = std::min(5, last - first + 1);
  if (n < 1) return {-1};
  std::vector<int> taps;
  taps.reserve(size_t(n));
  for (int i = 0; i < n; ++i)
    taps.push_back(int(std::nearbyint(first + double(i) * (last - first) / std::max(1, n - 1))));
  return taps;
}

Result<std::vector<int>> ParseTaps(const std::string& text, int layers) {
  if (text == "auto") return AutoTaps(layers);
  const auto wrong = [&] {
    return MakeError(
        "--taps {}: expected auto, or layers with commas between, ascending, from -1 to {} or {}", text,
        layers - 2, layers);
  };
  std::vector<int> taps;
  const char *at = text.data(), *end = at + text.size();
  for (;;) {
    int tap = 0;
    const auto [stop, error] = std::from_chars(at, end, tap);
    const bool allowed = tap >= -1 && tap <= layers && tap != layers - 1;
    if (error != std::errc() || !allowed || (!taps.empty() && tap <= taps.back())) return wrong();
    taps.push_back(tap);
    if (stop == end) return taps;
    if (*stop != ',') return wrong();
    at = stop + 1;
  }
}

}  // namespace dspark

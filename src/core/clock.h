// Milliseconds on the steady clock, for what steps cost.
#pragma once

#include <chrono>

namespace dspark {

inline double NowMs() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace dspark

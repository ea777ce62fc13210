// Invariants of our own code. A failed check is a bug in dspark, never a consequence of input: it prints the
// expression with both values and aborts. Input errors are Result values (core/result.h).
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace dspark {

[[noreturn]] inline void CheckFailed(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: bug: check failed: %s\n", file, line, what.c_str());
  std::abort();
}

}  // namespace dspark

#define DSPARK_CHECK(cond) \
  (static_cast<bool>(cond) ? void(0) : ::dspark::CheckFailed(__FILE__, __LINE__, #cond))

#define DSPARK_CHECK_OP(a, op, b)                                                              \
  do {                                                                                         \
    const auto& check_a_ = (a);                                                                \
    const auto& check_b_ = (b);                                                                \
    if (!(check_a_ op check_b_))                                                               \
      ::dspark::CheckFailed(__FILE__, __LINE__,                                                \
                            fmt::format(#a " " #op " " #b " ({} vs {})", check_a_, check_b_)); \
  } while (false)

#define DSPARK_CHECK_EQ(a, b) DSPARK_CHECK_OP(a, ==, b)
#define DSPARK_CHECK_LE(a, b) DSPARK_CHECK_OP(a, <=, b)
#define DSPARK_CHECK_LT(a, b) DSPARK_CHECK_OP(a, <, b)
#define DSPARK_CHECK_GE(a, b) DSPARK_CHECK_OP(a, >=, b)

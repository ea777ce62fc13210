// Where tests find data that is not in the repository.
//  - the default model: $DSPARK_TEST_MODEL, else where `dspark pull` keeps it;
//  - golden outputs of reference implementations: $DSPARK_GOLDEN, else ../shared/golden beside the checkout;
//  - prompt sets: $DSPARK_DATA, else ../shared/data.
// A test whose data is missing skips with DSPARK_SKIP_WITHOUT, which says what to do about it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace dspark::test {

inline std::string FromEnvironment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

inline std::string GoldenDir() {
  return FromEnvironment("DSPARK_GOLDEN", std::string(DSPARK_SOURCE_DIR) + "/../shared/golden");
}

inline std::string DataDir() {
  return FromEnvironment("DSPARK_DATA", std::string(DSPARK_SOURCE_DIR) + "/../shared/data");
}

inline std::string DefaultModelPath() {
  const std::string cache =
      FromEnvironment("XDG_CACHE_HOME", FromEnvironment("HOME", "/nonexistent") + "/.cache");
  return FromEnvironment("DSPARK_TEST_MODEL", cache + "/dspark/SmolLM2-135M-Instruct.Q4_1.gguf");
}

}  // namespace dspark::test

#define DSPARK_SKIP_WITHOUT(path, cure)                                                               \
  do {                                                                                                \
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "*** SKIPPED: no " << (path) << "; " << cure; \
  } while (false)
#define DSPARK_SKIP_WITHOUT_MODEL() \
  DSPARK_SKIP_WITHOUT(::dspark::test::DefaultModelPath(), "run `dspark pull` once")
#define DSPARK_SKIP_WITHOUT_GOLDEN(sub) \
  DSPARK_SKIP_WITHOUT(::dspark::test::GoldenDir() + "/" + (sub), "set DSPARK_GOLDEN to the golden data")

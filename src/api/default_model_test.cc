#include "api/default_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace dspark {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(FindDefaultModel, NamesTheCure) {
  std::string pattern = (fs::temp_directory_path() / "dspark_cache_XXXXXX").string();
  const std::string cache = mkdtemp(pattern.data());
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string saved = before ? before : "";
  setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  EXPECT_EQ(DefaultModelPath(), cache + "/dspark/SmolLM2-135M-Instruct.Q4_1.gguf");
  const auto missing = FindDefaultModel();
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().text, HasSubstr("run `dspark pull`"));
  fs::create_directories(cache + "/dspark");
  std::ofstream(DefaultModelPath()) << "short";
  const auto cut = FindDefaultModel();
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().text, HasSubstr("has 5 bytes"));
  before ? setenv("XDG_CACHE_HOME", saved.c_str(), 1) : unsetenv("XDG_CACHE_HOME");
  fs::remove_all(cache);
}

}  // namespace
}  // namespace dspark

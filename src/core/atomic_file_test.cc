#include "core/atomic_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace dspark {
namespace {

namespace fs = std::filesystem;

std::string Text(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const std::string dir = testing::TempDir() + "dspark_atomic_file", path = dir + "/x";
  fs::remove_all(dir);
  fs::create_directories(dir);
  std::ofstream(path) << "old";
  {
    auto abandoned = AtomicFile::Create(path);
    ASSERT_TRUE(abandoned.ok());
    abandoned->Write("half");
  }
  EXPECT_EQ(Text(path), "old");
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  file->Write("new");
  EXPECT_EQ(Text(path), "old");
  EXPECT_TRUE(file->Commit().ok());
  EXPECT_EQ(Text(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 1);
}

TEST(AtomicFile, FailuresAreOneLine) {
  const auto file = AtomicFile::Create("/nonexistent/x");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().text.find("/nonexistent/x: cannot be written: No such file"), 0u);
}

}  // namespace
}  // namespace dspark

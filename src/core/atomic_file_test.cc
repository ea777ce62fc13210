#include "core/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "temp_dir.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

std::string Text(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/x";
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
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
}

// What the first failing write said is what Commit says, however much is written after it.
TEST(AtomicFile, AWriteThatFailsIsNotForgotten) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/x";
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  const rlimit small{4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  file->Write(std::string(1 << 20, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  file->Write("more");
  const Status status = file->Commit();
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().text.find("File too large"), std::string::npos) << status.error().text;
  EXPECT_FALSE(fs::exists(path));
}

TEST(AtomicFile, FailuresAreOneLine) {
  const auto file = AtomicFile::Create("/nonexistent/x");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().text.find("/nonexistent/x: cannot be written: No such file"), 0u);
}

}  // namespace
}  // namespace dspark

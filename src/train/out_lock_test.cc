#include "train/out_lock.h"

#include <gtest/gtest.h>

#include <optional>

#include "temp_dir.h"

namespace dspark::test {
namespace {

TEST(OutLock, OneRunADirectory) {
  const TempDir dir;
  const std::string out = dir.path() + "/a/b";
  std::optional<OutLock> first = OutLock::Take(out).value();
  const auto second = OutLock::Take(out);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().text.find("another run"), std::string::npos) << second.error().text;
  EXPECT_TRUE(OutLock::Take(dir.path() + "/a/c").ok());
  first.reset();
  EXPECT_TRUE(OutLock::Take(out).ok());
}

TEST(OutLock, SaysWhatCannotBeMade) {
  const auto lock = OutLock::Take("/proc/nowhere");
  ASSERT_FALSE(lock.ok());
  EXPECT_TRUE(lock.error().text.starts_with("/proc/nowhere: ")) << lock.error().text;
}

}  // namespace
}  // namespace dspark::test

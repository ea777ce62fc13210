#include "core/buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

namespace dspark {
namespace {

TEST(Buffer, IsZeroedAndAligned) {
  Buffer<float> buffer(3000);
  EXPECT_EQ(buffer.size(), 3000u);
  EXPECT_EQ(buffer.Bytes(), 12000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
  for (float x : buffer.span()) ASSERT_EQ(x, 0);
}

TEST(Buffer, EmptyOwnsNothing) {
  Buffer<int> none, zero(0);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(zero.data(), nullptr);
  EXPECT_TRUE(zero.span().empty());
}

TEST(Buffer, MovesLeaveTheSourceEmpty) {
  Buffer<int> a(10);
  a[3] = 7;
  const int* data = a.data();
  Buffer<int> b(std::move(a));
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(a.data(), nullptr);
  EXPECT_EQ(a.size(), 0u);
  Buffer<int> c(5);
  c = std::move(b);
  EXPECT_EQ(c[3], 7);
  EXPECT_EQ(c.size(), 10u);
  EXPECT_EQ(b.data(), nullptr);
  EXPECT_EQ(b.size(), 0u);
}

TEST(Buffer, LargeOnesAreBackedOnlyWhenWritten) {
  Buffer<uint8_t> buffer(size_t{2} << 30);
  buffer[buffer.size() - 1] = 1;
  EXPECT_EQ(buffer[0], 0);
  EXPECT_EQ(buffer[buffer.size() - 1], 1);
}

TEST(BufferDeath, SizesBeyondTheAddressSpaceAreBugs) {
  EXPECT_DEATH(Buffer<uint64_t>(SIZE_MAX / 4), "check failed");
  EXPECT_DEATH(Buffer<uint8_t>(SIZE_MAX / 4), "check failed");
}

}  // namespace
}  // namespace dspark

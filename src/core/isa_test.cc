#include "core/isa.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace dspark {
namespace {

TEST(Isa, NamesGoBothWays) {
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni}) {
    EXPECT_EQ(IsaFromName(IsaName(isa)), isa);
  }
  EXPECT_FALSE(IsaFromName("sse"));
  EXPECT_TRUE(IsaSupported(DetectIsa()));
}

TEST(CpuName, IsOneLine) {
  const std::string name = CpuName();
  EXPECT_FALSE(name.empty());
  EXPECT_EQ(std::count(name.begin(), name.end(), '\n'), 0);
  EXPECT_NE(name.front(), ' ');
}

}  // namespace
}  // namespace dspark

#include "apps/describe_model.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

TEST(DescribeModel, PassesHoldSevenDraftsBehindEverySequence) {
  EXPECT_EQ(LogitRowsFor(1), 64);
  EXPECT_EQ(LogitRowsFor(16), 128);
  EXPECT_EQ(LogitRowsFor(64), 512);
  EXPECT_EQ(LogitRowsFor(100), 512);
}

}  // namespace
}  // namespace dspark

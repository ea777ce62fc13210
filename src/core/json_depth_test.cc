#include "core/json_depth.h"

#include <gtest/gtest.h>

#include <string>

namespace dspark {
namespace {

TEST(JsonDepth, CountsWhatIsOpenAtOnce) {
  EXPECT_EQ(JsonDepth(""), 0);
  EXPECT_EQ(JsonDepth("3"), 0);
  EXPECT_EQ(JsonDepth(R"({"a": [], "b": [{}, {"c": [1]}]})"), 4);
  EXPECT_EQ(JsonDepth(R"(["[[[", "\"[[[", "\\", [1]])"), 2);
  EXPECT_EQ(JsonDepth("]]]] [[ ] ["), 0);  // closed before it was opened: no JSON
  EXPECT_EQ(JsonDepth(std::string(100000, '[')), 100000);
}

}  // namespace
}  // namespace dspark

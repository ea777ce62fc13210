#include "eval/traffic_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "xml_check.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;
using testing::Not;

LoadPoint MakePoint(const std::string& policy, int concurrency, double speed) {
  LoadPoint point{.policy = policy, .concurrency = concurrency};
  point.figures.tok_per_s = speed;
  point.figures.user_tok_per_s = speed / concurrency;
  point.figures.verify_length = 8.0 / concurrency;
  point.figures.rows = 4.0 * concurrency;
  return point;
}

TEST(TrafficReport, IsWellFormedAndDrawsALineForEachPolicy) {
  TrafficResults results{.title = "A <load>", .model = "m & m", .drafter = "lookup, t"};
  for (const char* policy : {"adaptive", "off", "a<b"}) {
    for (const int streams : {1, 2, 4}) results.points.push_back(MakePoint(policy, streams, 100.0 * streams));
  }
  const std::string page = RenderTrafficReport(results);
  EXPECT_EQ(XmlError(page), "");
  EXPECT_THAT(page, HasSubstr("<title>A &lt;load&gt;: m &amp; m with lookup, t</title>"));
  EXPECT_THAT(page, HasSubstr("a&lt;b"));
  EXPECT_THAT(page, HasSubstr("(Figure 7)"));
  EXPECT_THAT(page, HasSubstr("(Figure 8)"));
  for (const char* line : {"class=\"s0\" d=\"M", "class=\"s1\" d=\"M", "class=\"s2\" d=\"M"})
    EXPECT_THAT(page, HasSubstr(line));
  EXPECT_THAT(page, Not(HasSubstr("class=\"s3\" d=\"M")));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST(TrafficReport, ServersElsewhereHaveNoSteps) {
  LoadPoint point = MakePoint("http://x", 2, 50);
  point.figures.rows = point.figures.verify_length = std::nan("");
  const std::string page = RenderTrafficReport({.title = "t", .points = {point}});
  EXPECT_EQ(XmlError(page), "");
  EXPECT_THAT(page, HasSubstr("Left out: it needs a server in this process"));
  EXPECT_THAT(page, HasSubstr("<td>–</td>"));
}

TEST(TrafficReport, NothingMeasuredIsStillAPage) {
  LoadPoint point{.policy = "off", .per_second = 0.5};
  point.figures = FiguresOf({});
  EXPECT_EQ(XmlError(RenderTrafficReport({.title = "t", .points = {point}})), "");
  EXPECT_EQ(XmlError(RenderTrafficReport({.title = "t"})), "");
}

}  // namespace
}  // namespace dspark::test

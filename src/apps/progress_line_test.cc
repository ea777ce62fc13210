#include "apps/progress_line.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace dspark::test {
namespace {

std::string Printed(bool terminal) {
  testing::internal::CaptureStderr();
  {
    ProgressLine line(terminal);
    const auto text = [] { return std::string("1 of 3"); };
    line.Show(text);  // too early
    std::this_thread::sleep_for(std::chrono::milliseconds(550));
    line.Show(text);
    line.Show(text);
    line.Finish("2 of 3");
    std::this_thread::sleep_for(std::chrono::milliseconds(550));
    line.Show(text);
  }
  return testing::internal::GetCapturedStderr();
}

TEST(ProgressLine, IsKeptUpToDateOnATerminal) {
  EXPECT_EQ(Printed(true), "\r\x1b[K1 of 3\r\x1b[K2 of 3\n\r\x1b[K1 of 3\n");
}

TEST(ProgressLine, IsANewLineNowAndThenElsewhere) { EXPECT_EQ(Printed(false), "2 of 3\n"); }

// What takes a while before there is any progress.
TEST(ProgressLine, BeginsAtOnceOnATerminalAlone) {
  for (const bool terminal : {true, false}) {
    testing::internal::CaptureStderr();
    ProgressLine line(terminal);
    line.Begin("loading x");
    line.Clear();
    EXPECT_EQ(testing::internal::GetCapturedStderr(), terminal ? "\r\x1b[Kloading x\r\x1b[K" : "");
  }
}

}  // namespace
}  // namespace dspark::test

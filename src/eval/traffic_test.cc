#include "eval/traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "temp_dir.h"

namespace dspark::test {
namespace {

using testing::HasSubstr;

std::vector<double> Gaps(const std::vector<Arrival>& arrivals) {
  std::vector<double> gaps;
  double last = 0;
  for (const Arrival& arrival : arrivals) {
    gaps.push_back(arrival.at_ms - last);
    last = arrival.at_ms;
  }
  return gaps;
}

// Exponential gaps: their mean is 1 / rate, a share 1 / e is longer than that, and counts of disjoint seconds
// have a variance equal to their mean.
TEST(Traffic, PoissonArrivalsAreAPoissonProcess) {
  constexpr double kRate = 5, kSeconds = 4000;
  const std::vector<Arrival> arrivals = PoissonArrivals(kRate, kSeconds, 1);
  const double n = double(arrivals.size());
  EXPECT_NEAR(n, kRate * kSeconds, 4 * std::sqrt(kRate * kSeconds));
  int longer = 0;
  for (const double gap : Gaps(arrivals)) {
    ASSERT_GE(gap, 0);
    longer += gap > 1000 / kRate;
  }
  EXPECT_NEAR(longer / n, std::exp(-1.0), 4 * std::sqrt(0.25 / n));
  std::vector<double> counts(size_t(kSeconds), 0.0);
  for (const Arrival& arrival : arrivals) ++counts[size_t(arrival.at_ms / 1000)];
  double variance = 0;
  for (const double count : counts) variance += (count - kRate) * (count - kRate) / kSeconds;
  EXPECT_NEAR(variance, kRate, 0.6);
}

TEST(Traffic, ASeedGivesTheSameArrivals) {
  const auto times = [](uint64_t seed) { return Gaps(PoissonArrivals(3, 20, seed)); };
  EXPECT_EQ(times(7), times(7));
  EXPECT_NE(times(7), times(8));
}

class Trace : public testing::Test {
 protected:
  Result<std::vector<Arrival>> Read(const std::string& name, const std::string& text) {
    const std::string path = dir_.path() + "/" + name;
    std::ofstream(path) << text;
    return ReadTrace(path);
  }
  std::string Error(const std::string& name, const std::string& text) {
    const auto read = Read(name, text);
    return read ? "none" : read.error().text;
  }
  TempDir dir_;
};

TEST_F(Trace, JsonLinesAreSortedAndBeginAtZero) {
  const auto arrivals = Read("t.jsonl",
                             "{\"at_s\": 12.5, \"prompt_tokens\": 30, \"max_tokens\": 4}\n\n"
                             "{\"at_s\": 10, \"prompt\": \"hello\"}\n");
  ASSERT_TRUE(arrivals.ok()) << arrivals.error().text;
  ASSERT_EQ(arrivals->size(), 2u);
  EXPECT_EQ((*arrivals)[0].at_ms, 0);
  EXPECT_EQ((*arrivals)[0].prompt, "hello");
  EXPECT_EQ((*arrivals)[0].max_tokens, 0);
  EXPECT_EQ((*arrivals)[1].at_ms, 2500);
  EXPECT_EQ((*arrivals)[1].prompt_tokens, 30);
  EXPECT_EQ((*arrivals)[1].max_tokens, 4);
}

TEST_F(Trace, CsvNamesItsColumns) {
  const auto arrivals = Read("t.csv", "max_tokens, at_s\n7,0\n8, 1.5\r\n");
  ASSERT_TRUE(arrivals.ok()) << arrivals.error().text;
  ASSERT_EQ(arrivals->size(), 2u);
  EXPECT_EQ((*arrivals)[1].at_ms, 1500);
  EXPECT_EQ((*arrivals)[1].max_tokens, 8);
}

TEST_F(Trace, ErrorsSayWhereAndWhat) {
  EXPECT_THAT(Error("a.jsonl", ""), HasSubstr("no request"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": 1}\nnonsense\n"), HasSubstr("a.jsonl:2: not an object with at_s"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": -1}"), HasSubstr("at_s is -1"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": 1, \"prompt_tokens\": 1.5}"), HasSubstr("a whole number"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": 1, \"tokens\": 1}"), HasSubstr("unknown field 'tokens'"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": 1, \"prompt\": 3}"), HasSubstr("prompt is no text"));
  EXPECT_THAT(Error("a.jsonl", "{\"at_s\": true}"), HasSubstr("at_s is no number"));
  EXPECT_THAT(Error("a.csv", "prompt_tokens\n1\n"),
              HasSubstr("a.csv:1: the first line names no column at_s"));
  EXPECT_THAT(Error("a.csv", "at_s,max_tokens\n1\n"), HasSubstr("a.csv:2: 1 columns"));
  EXPECT_THAT(Error("a.csv", "at_s\nx\n"), HasSubstr("at_s is 'x'"));
  EXPECT_THAT(ReadTrace(dir_.path() + "/none").error().text, HasSubstr("cannot be read"));
}

TEST(Traffic, MadeUpPromptsHaveALengthAndDiffer) {
  EXPECT_EQ(TextOfLength("abc", 2, 0), "abcabcab");
  EXPECT_EQ(TextOfLength("abc", 1, 1), "bcab");
}

}  // namespace
}  // namespace dspark::test

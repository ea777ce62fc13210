#include "grammar/number_range.h"

#include <gtest/gtest.h>

#include <random>

#include "grammar_check.h"

namespace dspark {
namespace {

// Hundredths as a decimal text with at least `decimals` digits behind the point.
std::string Text(int hundredths, int decimals) {
  const int size = std::abs(hundredths);
  std::string text = (hundredths < 0 ? "-" : "") + std::to_string(size / 100);
  if (decimals == 0) return text;
  text += '.' + std::to_string(size / 10 % 10);
  return decimals == 1 ? text : text + std::to_string(size % 10);
}

int DecimalsOf(int hundredths) { return hundredths % 100 == 0 ? 0 : hundredths % 10 == 0 ? 1 : 2; }

bool Inside(int value, const NumberRange& range, int min, int max) {
  if (range.min && (value < min || (value == min && range.min->exclusive))) return false;
  return !range.max || !(value > max || (value == max && range.max->exclusive));
}

TEST(NumberInRange, IsExact) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int scale = round % 3 == 0 ? 30 : round % 3 == 1 ? 1500 : 12000;
    const auto bound = [&] { return int(random() % unsigned(2 * scale)) - scale; };
    int min = bound(), max = bound();
    if (min > max) std::swap(min, max);
    NumberRange range{.integer = random() % 2 == 0};
    if (random() % 4 != 0) range.min = ParseBound(Text(min, 2), random() % 2);
    if (random() % 4 != 0) range.max = ParseBound(Text(max, DecimalsOf(max)), random() % 2);
    if (!range.min && !range.max) continue;
    GrammarBuilder b(test::AllBytes());
    auto grammar = b.Finish(NumberInRange(b, range));
    std::optional<Matcher> matcher;
    if (grammar) matcher.emplace(*grammar);
    int inside = 0;
    for (int value = -scale - 300; value <= scale + 300; ++value) {
      const bool expected = Inside(value, range, min, max) && (!range.integer || value % 100 == 0);
      inside += expected;
      if (!matcher) continue;
      for (int decimals = DecimalsOf(value); decimals <= (range.integer ? 0 : 2); ++decimals) {
        ASSERT_EQ(test::Accepts(*matcher, Text(value, decimals)), expected)
            << Text(value, decimals) << " in " << min << " … " << max << " hundredths, round " << round;
      }
    }
    EXPECT_TRUE(grammar.ok() || inside == 0);
  }
}

TEST(NumberInRange, ReadsBoundsOfAllSizes) {
  const auto accepts = [](NumberRange range, std::string_view text) {
    GrammarBuilder b(test::AllBytes());
    Matcher matcher(std::move(b.Finish(NumberInRange(b, range))).value());
    return test::Accepts(matcher, text);
  };
  EXPECT_TRUE(accepts({.min = ParseBound("1e-07", false)}, "0.0000001"));
  EXPECT_FALSE(accepts({.min = ParseBound("1e-07", true)}, "0.0000001"));
  EXPECT_TRUE(accepts({.min = ParseBound("1e-30", false)}, "0.000000000000001"));
  EXPECT_FALSE(accepts({.min = ParseBound("1e-30", false)}, "0.0"));
  EXPECT_TRUE(accepts({.max = ParseBound("1e+30", false)}, "999999999999999"));
  EXPECT_TRUE(accepts({.max = ParseBound("-2.5e1", false)}, "-25.0"));
  EXPECT_FALSE(accepts({.max = ParseBound("-2.5e1", false)}, "-24.9"));
  EXPECT_FALSE(accepts({.min = ParseBound("0", false), .integer = true}, "-1"));
  EXPECT_FALSE(accepts({.min = ParseBound("0", false)}, "01"));
  for (const char* text : {"0", "-1", "12.5", "1e5", "-0.1E-20"}) EXPECT_TRUE(accepts({}, text));
  for (const char* text : {"01", ".5", "1.", "+1", "1e", "1e100", "", "-"}) EXPECT_FALSE(accepts({}, text));
}

}  // namespace
}  // namespace dspark

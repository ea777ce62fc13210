#include "core/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace dspark {
namespace {

Result<int> ParseDigit(char c) {
  if (c < '0' || c > '9') return MakeError("'{}' is not a digit; give 0 to 9", c);
  return c - '0';
}

Result<int> AddDigits(char a, char b) {
  DSPARK_ASSIGN_OR_RETURN(const int x, ParseDigit(a));
  DSPARK_ASSIGN_OR_RETURN(const int y, ParseDigit(b));
  return x + y;
}

Status CheckDigits(char a, char b) {
  DSPARK_RETURN_IF_ERROR(ParseDigit(a));
  DSPARK_RETURN_IF_ERROR(ParseDigit(b));
  return {};
}

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good = ParseDigit('7');
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good, 7);
  const Result<int> bad = ParseDigit('x');
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().text, "'x' is not a digit; give 0 to 9");
}

TEST(Result, MacrosHandTheFirstErrorOn) {
  EXPECT_EQ(AddDigits('3', '4').value(), 7);
  EXPECT_EQ(AddDigits('a', 'b').error().text, "'a' is not a digit; give 0 to 9");
  EXPECT_EQ(AddDigits('1', 'b').error().text, "'b' is not a digit; give 0 to 9");
  EXPECT_TRUE(CheckDigits('1', '2').ok());
  EXPECT_EQ(CheckDigits('1', '-').error().text, "'-' is not a digit; give 0 to 9");
}

TEST(Result, CarriesMoveOnlyValues) {
  Result<std::unique_ptr<std::string>> made = std::make_unique<std::string>("here");
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)->size(), 4u);
  const std::unique_ptr<std::string> taken = std::move(made).value();
  EXPECT_EQ(*taken, "here");
}

TEST(ResultDeath, ReadingTheWrongSideIsABug) {
  EXPECT_DEATH(ParseDigit('x').value(), "check failed");
  EXPECT_DEATH((void)ParseDigit('1').error(), "check failed");
  EXPECT_DEATH((void)Status().error(), "check failed");
}

TEST(CheckDeath, SaysBothValues) {
  DSPARK_CHECK_EQ(2 + 2, 4);
  EXPECT_DEATH(DSPARK_CHECK_EQ(2 + 2, 5), "2 \\+ 2 == 5 \\(4 vs 5\\)");
}

}  // namespace
}  // namespace dspark

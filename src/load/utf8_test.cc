#include "load/utf8.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

TEST(Utf8Test, EncodesAndDecodesEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    AppendUtf8(c, &text);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(IsValidUtf8(text), !surrogate) << uint32_t(c);
    if (surrogate) continue;
    ASSERT_EQ(DecodeUtf8(text.data(), int(text.size())), c);
    for (size_t n = 1; n < text.size(); ++n) {
      ASSERT_EQ(UnfinishedUtf8Suffix(text.substr(0, n)), n) << uint32_t(c);
      ASSERT_EQ(ReplaceInvalidUtf8(text.substr(0, n)), "\uFFFD");
    }
    ASSERT_EQ(UnfinishedUtf8Suffix(text), 0u);
  }
}

// The expected texts are what Python's bytes.decode("utf-8", "replace") gives.
TEST(Utf8Test, ReplacesMaximalSubparts) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "b"),
            "a\uFFFDb");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98 ok"), "\uFFFD ok");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x80\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82\xE2\x82\xAC\xE2"), "\uFFFD€\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8(""), "");
}

TEST(Utf8Test, AnUnfinishedSuffixIsOnlyWhatMayBecomeACharacter) {
  EXPECT_EQ(UnfinishedUtf8Suffix("abc"), 0u);
  EXPECT_EQ(UnfinishedUtf8Suffix("abc\xE2\x82"), 2u);
  EXPECT_EQ(UnfinishedUtf8Suffix("\x82\x82"), 0u);
  EXPECT_EQ(UnfinishedUtf8Suffix("\xE0\x80"), 0u);
  EXPECT_EQ(UnfinishedUtf8Suffix("\xFF"), 0u);
  EXPECT_EQ(UnfinishedUtf8Suffix(""), 0u);
}

TEST(Utf8Test, FindsTheFirstErrorBehindAnyNumberOfAsciiBytes) {
  for (size_t n = 0; n < 40; ++n) {
    EXPECT_EQ(ValidUtf8Prefix(std::string(n, 'x') + "\x80"), n);
    EXPECT_EQ(ValidUtf8Prefix(std::string(n, 'x') + "é"), n + 2);
  }
}

}  // namespace
}  // namespace dspark

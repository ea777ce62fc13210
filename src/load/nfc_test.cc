#include "load/nfc.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <random>

#include "load/utf8.h"

namespace dspark {
namespace {

std::string Utf8procNfc(const std::string& text) {
  uint8_t* result = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()), utf8proc_ssize_t(text.size()),
                              &result, utf8proc_option_t(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  EXPECT_GE(n, 0);
  const std::string normal(reinterpret_cast<char*>(result), size_t(n));
  std::free(result);
  return normal;
}

TEST(NfcTest, ComposesAndOrdersMarks) {
  EXPECT_EQ(Nfc("e\u0301 vs é"), "é vs é");
  EXPECT_EQ(Nfc("o\u0302\u0323"), "\u1ED9");
  EXPECT_EQ(Nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(Nfc("\u212B \u2126"), "Å Ω");
  EXPECT_EQ(Nfc("\uFB01"), "\uFB01");
  EXPECT_EQ(Nfc(""), "");
  EXPECT_TRUE(IsPlainNfc("naïve Œuvre"));
  EXPECT_FALSE(IsPlainNfc("e\u0301"));
}

TEST(NfcTest, AgreesWithUtf8procOnRandomText) {
  std::mt19937 random(7);
  const std::u32string marks =
      U"\u0300\u0301\u0323\u031B\u0345\u0308\u0327\u05B0\u3099\u1161\u11A8\u09BE\u0F71";
  for (int trial = 0; trial < 20000; ++trial) {
    std::string text;
    for (unsigned i = 0, n = random() % 12; i < n; ++i) {
      char32_t c = random() % 3 ? marks[random() % marks.size()] : random() % 0x3400;
      if (random() % 16 == 0) c = random() % 0x20000;
      if (c < 0xD800 || c >= 0xE000) AppendUtf8(c, &text);
    }
    ASSERT_EQ(Nfc(text), Utf8procNfc(text)) << testing::PrintToString(text);
  }
}

// Ordering them by exchanging neighbours would take 10^11 steps.
TEST(NfcTest, LongRunsOfMarksTakeLittleTime) {
  std::string text;
  for (int i = 0; i < 500000; ++i) text += "\u0301\u0323";
  const std::string normal = Nfc(text);
  EXPECT_EQ(normal.size(), text.size());
  EXPECT_EQ(normal.substr(0, 4), "\u0323\u0323");
}

}  // namespace
}  // namespace dspark

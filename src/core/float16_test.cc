#include "core/float16.h"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <cmath>
#include <limits>

#include "core/rng.h"

namespace dspark {
namespace {

bool IsHalfNan(uint32_t h) { return (h & 0x7fff) > 0x7c00; }

TEST(Half, AllValuesRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = HalfToFloat(uint16_t(h));
    if (IsHalfNan(h)) {
      ASSERT_TRUE(std::isnan(f)) << h;
      ASSERT_EQ(FloatToHalf(f), h | 0x200) << "a NaN keeps its payload and becomes quiet: " << h;
    } else {
      ASSERT_EQ(FloatToHalf(f), h);
    }
  }
}

TEST(Half, ValuesAreThoseOfTheFormat) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const int exponent = int(h >> 10), mantissa = int(h & 0x3ff);
    const double value =
        exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(double(mantissa), -24);
    ASSERT_EQ(HalfToFloat(uint16_t(h)), value) << h;
    ASSERT_EQ(HalfToFloat(uint16_t(h | 0x8000)), -value) << h;
  }
  EXPECT_EQ(HalfToFloat(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(HalfToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
}

// Halfway between neighbours the even mantissa wins; one ulp to either side does not.
TEST(Half, TiesGoToEven) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = HalfToFloat(uint16_t(h)), high = HalfToFloat(uint16_t(h + 1));
    const float middle = low + (high - low) / 2;
    const uint32_t even = h & 1 ? h + 1 : h;
    ASSERT_EQ(FloatToHalf(middle), even);
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), h);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9f)), h + 1);
  }
  EXPECT_EQ(FloatToHalf(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0);
}

__attribute__((target("f16c"))) uint16_t HardwareHalf(float f) { return uint16_t(_cvtss_sh(f, 0)); }

TEST(Half, AgreesWithTheProcessor) {
  if (!__builtin_cpu_supports("f16c")) GTEST_SKIP() << "this processor has no F16C";
  for (uint64_t i = 0; i < 1 << 20; ++i) {
    const float f = std::bit_cast<float>(uint32_t(UniformDouble(1, i, Purpose::kTest) * 0x1p32));
    ASSERT_EQ(FloatToHalf(f), HardwareHalf(f)) << std::bit_cast<uint32_t>(f);
  }
}

TEST(Bf16, AllValuesRoundTrip) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const float f = Bf16ToFloat(uint16_t(b));
    const bool nan = (b & 0x7fff) > 0x7f80;
    ASSERT_EQ(std::isnan(f), nan);
    ASSERT_EQ(FloatToBf16(f), nan ? b | 0x40 : b);
  }
}

TEST(Bf16, TiesGoToEven) {
  for (uint32_t b = 0; b < 0x7f80; ++b) {
    const uint32_t middle = b << 16 | 0x8000;
    ASSERT_EQ(FloatToBf16(std::bit_cast<float>(middle)), b & 1 ? b + 1 : b);
    ASSERT_EQ(FloatToBf16(std::bit_cast<float>(middle - 1)), b);
    ASSERT_EQ(FloatToBf16(std::bit_cast<float>(middle + 1)), b + 1);
  }
}

}  // namespace
}  // namespace dspark

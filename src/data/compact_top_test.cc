// Lists of the target's likeliest tokens in a compact cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "core/float16.h"
#include "core/rng.h"
#include "data/cache_writer.h"
#include "data/compact_sample.h"
#include "data/target_cache.h"
#include "temp_dir.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

using testing::HasSubstr;

constexpr int kWidth = 8, kTop = 3, kTokens = 7, kVocab = 70000;

SampleShape Shape() {
  return {
      .tap_layers = {1}, .d_model = kWidth, .vocab = kVocab, .target_name = "target", .teacher_top = kTop};
}

// Tokens 2 to 5 are supervised, so rows 1 to 6 have lists.
TrainSample MakeSample() {
  TrainSample sample;
  for (int i = 0; i < kTokens; ++i) {
    sample.ids.push_back(i);
    sample.loss_mask.push_back(i >= 2 && i < 6);
    for (int c = 0; c < kWidth; ++c) sample.taps.push_back(float(c));
    for (int j = 0; j < kTop; ++j) {
      const float noise = UniformFloat(uint64_t(i), uint64_t(j), Purpose::kTest);
      sample.top.ids.push_back(int32_t(20000 * j + int(noise * 10000)));
      sample.top.log_p.push_back(-2.5f * float(j) - noise);
    }
  }
  return sample;
}

Result<TrainSample> Parsed(const std::string& bytes) {
  return ParseCompact({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, kTokens, Shape(),
                      SampleParts::kAll);
}

TEST(CompactTopTest, GivesBackTheLists) {
  test::TempDir dir;
  CacheSettings settings;
  settings.manifest.form = CacheForm::kCompact;
  settings.manifest.shape = Shape();
  auto writer = CacheWriter::Open(dir.path() + "/cache", settings);
  ASSERT_TRUE(writer.ok());
  const TrainSample sample = MakeSample();
  ASSERT_TRUE(writer->Append(sample).ok());
  ASSERT_TRUE(writer->Finish().ok());
  auto cache = TargetCache::Open(dir.path() + "/cache");
  ASSERT_TRUE(cache.ok()) << cache.error().text;
  EXPECT_EQ(cache->shape().teacher_top, kTop);
  const TrainSample got = std::move(cache->Read({0}).value()[0]);
  EXPECT_TRUE(got.last_hidden.empty());
  ASSERT_EQ(got.top.ids.size(), size_t{kTokens * kTop});
  for (size_t i = 0; i < got.top.ids.size(); ++i) {
    const bool kept = i >= kTop;
    EXPECT_EQ(got.top.ids[i], kept ? sample.top.ids[i] : 0) << i;
    EXPECT_EQ(got.top.log_p[i], kept ? HalfToFloat(FloatToHalf(sample.top.log_p[i])) : 0) << i;
    EXPECT_NEAR(std::exp(got.top.log_p[i]), kept ? std::exp(sample.top.log_p[i]) : 1, 1e-3) << i;
  }
}

TEST(CompactTopTest, ListsThatNoTargetGivesAreDamage) {
  const auto parse_after = [](const std::function<void(TopTokens*)>& change) {
    TrainSample sample = MakeSample();
    change(&sample.top);
    const auto parsed = Parsed(CompactBytes(sample, Shape()));
    return parsed ? "" : parsed.error().text;
  };
  constexpr size_t kRow = 4 * kTop;
  const float nan = std::nanf("");
  EXPECT_EQ(parse_after([](TopTokens*) {}), "");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->ids[0] = -1; }), "");  // of a row that is not kept
  EXPECT_EQ(parse_after([](TopTokens* top) { top->ids[kRow] = -1; }), "is damaged");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->ids[kRow + 1] = kVocab; }), "is damaged");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->ids[kRow + 2] = top->ids[kRow]; }), "is damaged");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->log_p[kRow] = 0.5f; }), "is damaged");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->log_p[kRow] = -20; }), "is damaged");
  EXPECT_EQ(parse_after([&](TopTokens* top) { top->log_p[kRow + 1] = nan; }), "is damaged");
  EXPECT_EQ(parse_after([](TopTokens* top) { top->log_p[kRow + 2] = -INFINITY; }), "is damaged");
}

// What a frame holds, and a frame of it.
std::string FrameOf(const std::string& bytes) {
  std::string frame(ZSTD_getFrameContentSize(bytes.data(), bytes.size()), '\0');
  EXPECT_EQ(ZSTD_decompress(frame.data(), frame.size(), bytes.data(), bytes.size()), frame.size());
  return frame;
}
std::string Packed(const std::string& frame) {
  std::string packed(ZSTD_compressBound(frame.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), frame.data(), frame.size(), 1));
  return packed;
}

TEST(CompactTopTest, NumbersThatNoWriterGivesAreDamage) {
  const std::string frame = FrameOf(CompactBytes(MakeSample(), Shape()));
  const auto parse_after = [&](size_t at, const auto& value) {
    std::string other = frame;
    std::memcpy(&other[at], &value, sizeof(value));
    const auto parsed = Parsed(Packed(other));
    return parsed ? "" : parsed.error().text;
  };
  constexpr size_t kScales = 4 + 5 * kTokens, kChannels = kScales + 4 * kTokens;
  for (const float scale : {NAN, INFINITY, -1.0f, 1e30f, 0.1f})
    EXPECT_EQ(parse_after(kScales + 4 * 2, scale),
              fmt::format("has the scale {} in row 2 of tapped layer 1", scale));
  EXPECT_EQ(parse_after(kScales + 4 * 2, 0.02f), "");
  EXPECT_EQ(parse_after(kChannels + 2 * 3, uint16_t{kWidth}), "is damaged");
  EXPECT_EQ(parse_after(kChannels + 2 * 3, uint16_t{kWidth - 1}), "");
  EXPECT_EQ(parse_after(0, int32_t{-1}), "is damaged");
}

// Before memory is asked for: a frame that says it holds 2^40 bytes.
TEST(CompactTopTest, AFrameThatClaimsTooMuchIsDamage) {
  const std::string bytes("\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\1\0\0\1\0\0", 16);
  ASSERT_EQ(ZSTD_getFrameContentSize(bytes.data(), bytes.size()), 1ull << 40);
  EXPECT_FALSE(Parsed(bytes).ok());
}

TEST(CompactTopTest, ACutFrameHasNoTokens) {
  const std::string bytes = CompactBytes(MakeSample(), Shape());
  const auto tokens = [&](size_t size) {
    return ParseCompact({reinterpret_cast<const uint8_t*>(bytes.data()), size}, kTokens, Shape(),
                        SampleParts::kTokens)
        .ok();
  };
  EXPECT_TRUE(tokens(bytes.size()));
  EXPECT_FALSE(tokens(20));
}

TEST(CompactTopTest, AFrameOfAnotherLengthIsDamage) {
  const std::string bytes = CompactBytes(MakeSample(), Shape()), frame = FrameOf(bytes);
  for (const int more : {-6 * kTop, -6, -1, 1, 6 * kTop}) {
    std::string other = frame;
    other.resize(size_t(int(frame.size()) + more));
    EXPECT_FALSE(Parsed(Packed(other)).ok()) << more;
  }
  EXPECT_FALSE(Parsed(bytes.substr(0, bytes.size() - 1)).ok());
}

TEST(CompactTopTest, TheManifestSaysHowManyTokens) {
  test::TempDir dir;
  CacheManifest manifest;
  manifest.form = CacheForm::kCompact;
  manifest.shape = Shape();
  manifest.samples = manifest.shards = 1;
  nlohmann::json json = ManifestJson(manifest);
  const auto read = [&] { return ReadManifest(test::WriteFile(dir.path() + "/manifest.json", json.dump())); };
  EXPECT_EQ(read()->shape.teacher_top, kTop);
  for (const nlohmann::json& wrong : {nlohmann::json(-1), nlohmann::json(1025), nlohmann::json("all")}) {
    json["teacher_top_k"] = wrong;
    EXPECT_THAT(read().error().text, HasSubstr("teacher_top_k"));
  }
  json["vocab_size"] = 2;
  json["teacher_top_k"] = 3;
  EXPECT_THAT(read().error().text, HasSubstr("0 to 2"));
  json.erase("teacher_top_k");
  EXPECT_EQ(read()->shape.teacher_top, 0);
  manifest.form = CacheForm::kDeepSpec;
  EXPECT_FALSE(ManifestJson(manifest).contains("teacher_top_k"));
}

}  // namespace
}  // namespace dspark

#include "data/target_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/float16.h"
#include "core/rng.h"
#include "data/cache_writer.h"
#include "data/compact_sample.h"
#include "temp_dir.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kWidth = 8;

// T tokens, supervised from `from` to `to`; values that bf16 holds exactly.
TrainSample MakeSample(int t, int from, int to, uint64_t seed, int taps = 2) {
  TrainSample sample;
  for (int i = 0; i < t; ++i) {
    sample.ids.push_back(int32_t(1000 * seed) + i);
    sample.loss_mask.push_back(i >= from && i < to);
  }
  const auto value = [&](int i) {
    return Bf16ToFloat(FloatToBf16(UniformFloat(seed, uint64_t(i), Purpose::kTest) * 4 - 2));
  };
  for (int i = 0; i < t * taps * kWidth; ++i) sample.taps.push_back(value(i));
  for (int i = 0; i < t * kWidth; ++i) sample.last_hidden.push_back(value(1 << 20 | i));
  return sample;
}

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Name and bytes of every file.
std::map<std::string, std::string> Files(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), dir)] = ReadAll(entry.path());
  }
  return files;
}

class TargetCacheTest : public testing::TestWithParam<CacheForm> {
 protected:
  TargetCacheTest() {
    settings_.manifest.form = GetParam();
    settings_.manifest.shape = {{1, 3}, kWidth, 10000, "target"};
    settings_.max_shard_bytes = 1000;
    for (int i = 0; i < 5; ++i) samples_.push_back(MakeSample(5 + 3 * i, 2, 4 + i, uint64_t(i)));
  }
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  Result<CacheWriter> Open(const std::string& name) const { return CacheWriter::Open(Path(name), settings_); }
  std::string WriteWhole(const std::string& name) const {
    auto writer = Open(name);
    EXPECT_TRUE(writer.ok());
    for (const TrainSample& sample : samples_) EXPECT_TRUE(writer->Append(sample).ok());
    EXPECT_TRUE(writer->Finish().ok());
    return Path(name);
  }
  void Append(const std::string& path, const std::string& bytes) const {
    std::ofstream(path, std::ios::binary | std::ios::app) << bytes;
  }

  test::TempDir dir_;
  CacheSettings settings_;
  std::vector<TrainSample> samples_;
};

INSTANTIATE_TEST_SUITE_P(Forms, TargetCacheTest, testing::Values(CacheForm::kDeepSpec, CacheForm::kCompact),
                         [](const auto& form) {
                           return form.param == CacheForm::kCompact ? "Compact" : "DeepSpec";
                         });

TEST_P(TargetCacheTest, GivesBackWhatWasWritten) {
  auto cache = TargetCache::Open(WriteWhole("cache"));
  ASSERT_TRUE(cache.ok()) << cache.error().text;
  EXPECT_EQ(cache->size(), 5);
  EXPECT_GT(cache->manifest().shards, 1);
  EXPECT_THAT(cache->shape().tap_layers, ElementsAre(1, 3));
  EXPECT_EQ(cache->shape().target_name, "target");
  const auto read = cache->Read({4, 0, 4}), tokens = cache->ReadTokens({4, 0, 4});
  ASSERT_TRUE(read.ok()) << read.error().text;
  ASSERT_TRUE(tokens.ok()) << tokens.error().text;
  const bool compact = GetParam() == CacheForm::kCompact;
  for (size_t i = 0; i < 3; ++i) {
    const TrainSample& got = (*read)[i];
    TrainSample sample = samples_[i == 1 ? 0 : 4];
    EXPECT_EQ(got.id, i == 1 ? 0 : 4);
    if (compact) {  // cut behind the token that follows the last supervised one
      const size_t t = i == 1 ? 5 : 9;
      EXPECT_EQ(got.left_out, i == 1 ? 0 : 8);
      EXPECT_EQ((*tokens)[i].left_out, got.left_out);
      sample.ids.resize(t);
      sample.loss_mask.resize(t);
      sample.taps.resize(t * 2 * kWidth);
      sample.last_hidden.resize(t * kWidth);
      std::fill_n(sample.last_hidden.begin(), kWidth, 0.0f);  // row 0 is not beside a supervised token
    }
    EXPECT_EQ(got.ids, sample.ids);
    EXPECT_EQ(got.loss_mask, sample.loss_mask);
    EXPECT_EQ((*tokens)[i].id, got.id);
    EXPECT_EQ((*tokens)[i].ids, sample.ids);
    EXPECT_EQ((*tokens)[i].loss_mask, sample.loss_mask);
    EXPECT_TRUE((*tokens)[i].taps.empty());
    EXPECT_EQ(got.last_hidden, sample.last_hidden);
    if (compact)  // half a step of at most 2 / 127
      EXPECT_THAT(got.taps, testing::Pointwise(testing::FloatNear(0.0081f), sample.taps));
    else
      EXPECT_EQ(got.taps, sample.taps);
  }
}

TEST_P(TargetCacheTest, GoesOnBehindTheLastWholeSample) {
  const auto expected = Files(WriteWhole("whole"));
  for (size_t whole = 0; whole <= samples_.size(); ++whole) {
    const std::string name = "cut" + std::to_string(whole);
    {
      auto writer = Open(name);
      ASSERT_TRUE(writer.ok()) << writer.error().text;
      EXPECT_THAT(Open(name).error().text, HasSubstr("another process"));
      for (size_t i = 0; i < whole; ++i) ASSERT_TRUE(writer->Append(samples_[i]).ok());
    }
    EXPECT_THAT(TargetCache::Open(Path(name)).error().text, HasSubstr("not finished"));
    // What a kill leaves behind: half a sample in the last shard or in the next, half a record.
    int last = 0;
    while (fs::exists(Path(name + "/" + ShardName(last + 1)))) ++last;
    Append(Path(name + "/" + ShardName(last)), "abc");
    Append(Path(name + "/" + ShardName(last + 1)), "abc");
    Append(Path(name + "/_tmp/progress"), "abc");
    auto writer = Open(name);
    ASSERT_TRUE(writer.ok()) << writer.error().text;
    ASSERT_EQ(writer->samples(), int64_t(whole));
    for (size_t i = whole; i < samples_.size(); ++i) ASSERT_TRUE(writer->Append(samples_[i]).ok());
    ASSERT_TRUE(writer->Finish().ok());
    EXPECT_EQ(Files(Path(name)), expected) << whole;
  }
}

TEST_P(TargetCacheTest, RefusesWhatItWouldSpoil) {
  { ASSERT_TRUE(Open("begun")->Append(samples_[0]).ok()); }
  settings_.made_from = "another model";
  EXPECT_THAT(Open("begun").error().text, HasSubstr("other inputs or settings"));
  Append(Path("foreign/file"), "");
  fs::create_directory(Path("foreign"));
  Append(Path("foreign/file"), "mine");
  EXPECT_THAT(Open("foreign").error().text, HasSubstr("not empty"));
  const std::string whole = WriteWhole("whole");
  EXPECT_THAT(Open("whole").error().text, HasSubstr("not empty"));
  EXPECT_TRUE(HoldsWholeCache(whole));
  RemoveCache(whole);
  EXPECT_TRUE(fs::is_empty(whole));
  EXPECT_FALSE(HoldsWholeCache(whole));
  RemoveCache(Path("foreign"));
  EXPECT_EQ(ReadAll(Path("foreign/file")), "mine");
  Append(Path("foreign/manifest.json"), "{\"name\": \"a web page\"}");
  EXPECT_FALSE(HoldsWholeCache(Path("foreign")));
  RemoveCache(Path("foreign"));
  EXPECT_TRUE(fs::exists(Path("foreign/manifest.json")));
}

TEST_P(TargetCacheTest, LeavesForeignSettingsAlone) {
  for (const std::string text :
       {"notes", "[1]", "{\"manifest\": 1, \"made_from\": \"\"}", "{\"made_from\": \"\"}"}) {
    fs::remove_all(Path("foreign"));
    fs::create_directories(Path("foreign/_tmp"));
    Append(Path("foreign/_tmp/settings.json"), text);
    EXPECT_THAT(Open("foreign").error().text,
                HasSubstr("_tmp/settings.json: is not the settings of a cache"));
    RemoveCache(Path("foreign"));
    EXPECT_EQ(ReadAll(Path("foreign/_tmp/settings.json")), text);
  }
  const std::string whole = WriteWhole("whole");
  fs::remove(whole + "/settings.json");
  Append(whole + "/settings.json", "notes");
  EXPECT_THAT(CheckSameSettings(whole, settings_).error().text,
              HasSubstr("settings.json: is not the settings"));
}

TEST_P(TargetCacheTest, AWholeCacheKnowsWhatItWasMadeFrom) {
  settings_.made_from = "this model";
  const std::string whole = WriteWhole("whole");
  EXPECT_TRUE(CheckSameSettings(whole, settings_).ok());
  const auto difference = [&](const std::function<void(CacheSettings*)>& change) {
    CacheSettings wanted = settings_;
    change(&wanted);
    const Status same = CheckSameSettings(whole, wanted);
    return same ? "none" : same.error().text;
  };
  EXPECT_EQ(difference([](CacheSettings* s) { s->manifest.exp_name = "moved"; }), "none");
  EXPECT_THAT(difference([](CacheSettings* s) { s->made_from = "another"; }), HasSubstr("other inputs"));
  EXPECT_THAT(difference([](CacheSettings* s) { s->manifest.max_length = 7; }),
              HasSubstr("max_length is 0 there, 7 is wanted"));
  fs::remove(whole + "/settings.json");
  EXPECT_THAT(difference([](CacheSettings*) {}), HasSubstr("does not say what it was made from"));
}

// What version 1 of the compact form holds can be read, and gone on with.
TEST_P(TargetCacheTest, AnEarlierVersionGoesOnAsItWasBegun) {
  if (GetParam() != CacheForm::kCompact) return;
  settings_.manifest.shape.knows_length = false;
  { ASSERT_TRUE(Open("cache")->Append(samples_[0]).ok()); }
  settings_.manifest.shape.knows_length = true;
  auto writer = Open("cache");
  ASSERT_TRUE(writer.ok()) << writer.error().text;
  ASSERT_EQ(writer->samples(), 1);
  ASSERT_TRUE(writer->Append(samples_[4]).ok());
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_TRUE(CheckSameSettings(Path("cache"), settings_).ok());
  EXPECT_THAT(ReadAll(Path("cache/manifest.json")), HasSubstr("\"version\": 1"));
  auto cache = TargetCache::Open(Path("cache"));
  ASSERT_TRUE(cache.ok()) << cache.error().text;
  EXPECT_FALSE(cache->shape().knows_length);
  const auto read = cache->Read({0, 1});
  ASSERT_TRUE(read.ok()) << read.error().text;
  EXPECT_EQ((*read)[1].ids, std::vector<int32_t>(samples_[4].ids.begin(), samples_[4].ids.begin() + 8));
  EXPECT_EQ((*read)[1].left_out, 0);
}

TEST_P(TargetCacheTest, LeavesForeignFilesInTmpAlone) {
  fs::create_directories(Path("foreign/_tmp"));
  Append(Path("foreign/_tmp/notes"), "mine");
  EXPECT_THAT(Open("foreign").error().text, HasSubstr("_tmp/notes is not of a cache"));
  RemoveCache(Path("foreign"));
  EXPECT_EQ(ReadAll(Path("foreign/_tmp/notes")), "mine");
  auto writer = Open("cache");
  Append(Path("cache/_tmp/notes"), "mine");
  ASSERT_TRUE(writer->Append(samples_[0]).ok() && writer->Finish().ok());
  EXPECT_FALSE(fs::exists(Path("cache/_tmp/progress")));
  Append(Path("cache/_tmp/progress"), "mine, too");
  EXPECT_TRUE(HoldsWholeCache(Path("cache")));
  RemoveCache(Path("cache"));
  EXPECT_EQ(ReadAll(Path("cache/_tmp/notes")), "mine");
  EXPECT_EQ(ReadAll(Path("cache/_tmp/progress")), "mine, too");
}

TEST_P(TargetCacheTest, BeginsWhereSettingsWereHalfWritten) {
  fs::create_directories(Path("cache/_tmp"));
  Append(Path("cache/_tmp/settings.json.77.tmp"), "{");
  WriteWhole("cache");
  EXPECT_FALSE(fs::exists(Path("cache/_tmp")));
}

// Caches from before there were lists have the last hidden states.
TEST_P(TargetCacheTest, SettingsWithoutTeacherTopHaveNoLists) {
  if (GetParam() != CacheForm::kCompact) return;
  const auto erase = [&](const std::string& path) {
    nlohmann::json settings = nlohmann::json::parse(ReadAll(path));
    EXPECT_EQ(settings["manifest"].erase("teacher_top_k"), 1u);
    std::ofstream(path) << settings.dump();
  };
  { ASSERT_TRUE(Open("begun")->Append(samples_[0]).ok()); }
  erase(Path("begun/_tmp/settings.json"));
  auto writer = Open("begun");
  ASSERT_TRUE(writer.ok()) << writer.error().text;
  EXPECT_EQ(writer->samples(), 1);
  erase(WriteWhole("whole") + "/settings.json");
  EXPECT_TRUE(CheckSameSettings(Path("whole"), settings_).ok());
  settings_.manifest.shape.teacher_top = 3;
  EXPECT_THAT(CheckSameSettings(Path("whole"), settings_).error().text,
              HasSubstr("teacher_top_k is 0 there"));
}

TEST_P(TargetCacheTest, StatesThatAreNotFiniteAreDamage) {
  samples_[1].taps[3 * 2 * kWidth + 5] = NAN;
  samples_[2].last_hidden[4 * kWidth] = INFINITY;
  auto cache = TargetCache::Open(WriteWhole("cache"));
  EXPECT_TRUE(cache->Read({0}).ok());
  EXPECT_THAT(cache->Read({0, 1}).error().text,
              HasSubstr("sample 1 has hidden states that are not finite in row 3"));
  EXPECT_THAT(cache->Read({2}).error().text,
              HasSubstr("sample 2 has hidden states that are not finite in row 4"));
}

// A flipped bit is found, or is one of those of zstd's header that mean nothing.
TEST(CompactSampleTest, FlippedBitsAreFound) {
  const SampleShape shape{{1, 3}, kWidth, 10000, ""};
  std::string bytes = CompactBytes(MakeSample(9, 2, 7, 5), shape);
  const auto parse = [&] {
    return ParseCompact({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, 8, shape,
                        SampleParts::kAll);
  };
  const TrainSample whole = parse().value();
  int found = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = char(bytes[bit / 8] ^ 1 << bit % 8);
    const auto parsed = parse();
    found += !parsed.ok();
    if (parsed.ok()) {
      EXPECT_EQ(parsed->taps, whole.taps) << bit;
    }
    bytes[bit / 8] = char(bytes[bit / 8] ^ 1 << bit % 8);
  }
  EXPECT_GT(found, int(bytes.size() * 8) - 32);
}

// A record of a sample that never reached its shard.
TEST_P(TargetCacheTest, RecordsWithoutTheirBytesAreDropped) {
  { ASSERT_TRUE(Open("cut")->Append(samples_[0]).ok()); }
  const std::string shard = Path("cut/" + ShardName(0));
  fs::resize_file(shard, fs::file_size(shard) - 1);
  EXPECT_EQ(Open("cut")->samples(), 0);
}

// DeepSpec's manifest does not say the vocabulary.
TEST_P(TargetCacheTest, KnowsOrIsToldTheVocabulary) {
  const std::string dir = WriteWhole("cache");
  const bool told = GetParam() == CacheForm::kDeepSpec;
  EXPECT_EQ(TargetCache::Open(dir)->shape().vocab, told ? 0 : 10000);
  auto cache = TargetCache::Open(dir, 4010);  // sample 4 has ids from 4000 on
  EXPECT_EQ(cache->shape().vocab, told ? 4010 : 10000);
  EXPECT_TRUE(cache->Read({3}).ok());
  EXPECT_EQ(cache->Read({4}).ok(), !told);
}

TEST_P(TargetCacheTest, DamageIsOneLine) {
  const auto open_after = [&](const std::string& file, const std::function<void(std::string*)>& damage) {
    const std::string dir = WriteWhole("damaged");
    std::string bytes = ReadAll(dir + "/" + file);
    damage(&bytes);
    std::ofstream(dir + "/" + file, std::ios::binary) << bytes;
    auto cache = TargetCache::Open(dir);
    std::string error = cache ? "" : cache.error().text;
    if (cache) {
      const auto read = cache->Read({0, 1, 2, 3, 4});
      error = read ? "" : read.error().text;
    }
    RemoveCache(dir);
    return error;
  };
  const auto replace = [](const std::string& from, const std::string& to) {
    return [=](std::string* bytes) { bytes->replace(bytes->find(from), from.size(), to); };
  };
  EXPECT_THAT(open_after("manifest.json", replace("num_samples", "samples")), HasSubstr("num_samples"));
  EXPECT_THAT(open_after("manifest.json", replace("\"version\": ", "\"version\": 9")), HasSubstr("version"));
  EXPECT_THAT(open_after("manifest.json", replace("shard-00001", "shard-00002")), HasSubstr("shards"));
  EXPECT_THAT(open_after("manifest.json", replace("num_samples\": 5", "num_samples\": 6")),
              HasSubstr("samples.idx"));
  EXPECT_THAT(open_after("samples.idx", [](std::string* b) { b->pop_back(); }), HasSubstr("are expected"));
  EXPECT_THAT(open_after("shard-00000.bin", [](std::string* b) { b->pop_back(); }),
              HasSubstr("record of sample"));
  EXPECT_THAT(open_after("shard-00001.bin", [](std::string* b) { b->push_back('x'); }),
              HasSubstr("shard-00001.bin"));
  EXPECT_THAT(open_after("samples.idx", [](std::string* b) { (*b)[8] = 77; }),
              testing::Not(testing::IsEmpty()));
  const bool compact = GetParam() == CacheForm::kCompact;
  EXPECT_THAT(open_after("shard-00000.bin", [&](std::string* b) { (*b)[compact ? 9 : 3] = char(0x80); }),
              HasSubstr("sample 0"));
  EXPECT_EQ(open_after("samples.idx", [](std::string*) {}), "");
}

TEST(DeepSpecSampleTest, BytesByHand) {
  TrainSample sample;
  sample.ids = {1, 258, 3};
  sample.loss_mask = {0, 1, 1};
  sample.taps = {1, -2, 0.5f, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  sample.last_hidden = {3, 3, 3, 3, 3, 3};
  const SampleShape shape{{0, 2}, 2, 0, ""};
  const std::string bytes = DeepSpecBytes(sample);
  ASSERT_EQ(bytes.size(), 3u * (6 + 2 * 2 * 3));
  EXPECT_EQ(bytes.substr(0, 18 + 8),
            std::string("\1\0\0\0\2\1\0\0\3\0\0\0\1\1\1\0\1\1\x80\x3f\0\xc0\0\x3f\x80\x3f", 26));
  const DeepSpecRecord record = DeepSpecRecordOf({1, 3, 100, bytes.size()}, 7, shape);
  const uint64_t expected[] = {7, uint64_t{3} << 32 | 1, 100, 112, 115, 118, 142};
  EXPECT_EQ(std::memcmp(&record, expected, sizeof(record)), 0);
}

TEST(CompactSampleTest, KeepsTheRowsThatALossReads) {
  EXPECT_THAT(TeacherRows({0, 0, 0, 1, 1, 0, 0, 0}), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(TeacherRows({1, 0, 0, 0, 0, 1}), ElementsAre(0, 1, 4, 5));
  SampleShape shape;
  EXPECT_EQ(CompactLength({0, 1, 0, 1, 0, 0}, shape), 5);
  EXPECT_EQ(CompactLength({0, 1, 0, 1}, shape), 4);
  shape.knows_length = false;
  EXPECT_EQ(CompactLength({0, 1, 0, 1, 0, 0}, shape), 4);
}

TEST(CompactSampleTest, MassiveChannelsCostTheOthersNothing) {
  TrainSample sample = MakeSample(4, 0, 4, 3);
  for (int i = 0; i < 4; ++i) {
    sample.taps[size_t(i * 2 * kWidth + 5)] = 4096;
    sample.taps[size_t(i * 2 * kWidth + 1)] = -512;
  }
  const SampleShape shape{{1, 3}, kWidth, 10000, ""};
  const std::string bytes = CompactBytes(sample, shape);
  const auto parsed = ParseCompact({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, 4, shape,
                                   SampleParts::kAll);
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(parsed->taps, testing::Pointwise(testing::FloatNear(0.0081f), sample.taps));
  EXPECT_EQ(parsed->taps[5], 4096);
}

}  // namespace
}  // namespace dspark

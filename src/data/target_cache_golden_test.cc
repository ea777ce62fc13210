// Caches against those that DeepSpec's own program wrote from the same conversations with the same target.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "data/target_cache.h"
#include "data/write_cache.h"
#include "temp_dir.h"
#include "test_data.h"

namespace dspark {
namespace {

using nlohmann::json;

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string Golden(const std::string& name) { return test::GoldenDir() + "/drafters/" + name; }

// Positions of two bf16 values, given as floats, on the line of all bf16 values.
int Ulps(float a, float b) {
  const auto place = [](float f) {
    const int bits = int(std::bit_cast<uint32_t>(f) >> 16);
    return bits & 0x8000 ? 0x8000 - bits : bits;
  };
  return std::abs(place(a) - place(b));
}

class GoldenTargetCache : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters/target_cache"); }
  std::string dir() const { return Golden("target_cache/") + GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Shards, GoldenTargetCache, testing::Values("one_shard", "two_shards"));

TEST_P(GoldenTargetCache, IsRead) {
  const json expected = json::parse(ReadAll(Golden("target_cache/expected.json")))[GetParam()]["samples"];
  auto cache = TargetCache::Open(dir());
  ASSERT_TRUE(cache.ok()) << cache.error().text;
  ASSERT_EQ(cache->size(), 2);
  EXPECT_EQ(cache->shape().tap_layers, (std::vector<int>{1, 3, 5}));
  EXPECT_EQ(cache->shape().d_model, 64);
  EXPECT_EQ(cache->shape().target_name, "target_qwen3");
  const auto samples = cache->Read({0, 1});
  ASSERT_TRUE(samples.ok()) << samples.error().text;
  for (size_t i = 0; i < 2; ++i) {
    const TrainSample& sample = (*samples)[i];
    const json& e = expected[i];
    EXPECT_EQ(sample.ids, e["input_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(sample.loss_mask, e["loss_mask"].get<std::vector<uint8_t>>());
    const auto first = e["taps_first_row_first8"].get<std::vector<float>>();
    const auto last = e["taps_last_row_last8"].get<std::vector<float>>();
    EXPECT_TRUE(std::equal(first.begin(), first.end(), sample.taps.begin()));
    EXPECT_TRUE(std::equal(last.begin(), last.end(), sample.taps.end() - 8));
    EXPECT_NEAR(std::accumulate(sample.taps.begin(), sample.taps.end(), 0.0), e["taps_sum"], 1e-6);
    EXPECT_NEAR(std::accumulate(sample.last_hidden.begin(), sample.last_hidden.end(), 0.0),
                e["last_hidden_sum"], 1e-6);
  }
}

TEST_P(GoldenTargetCache, VocabularyIsTheReaders) {
  TargetCache cache = TargetCache::Open(dir(), 512).value();
  EXPECT_EQ(cache.shape().vocab, 512);
  EXPECT_TRUE(cache.Read({0}).ok());
  TargetCache small = TargetCache::Open(dir(), 5).value();
  EXPECT_FALSE(small.Read({0}).ok());
}

TEST_P(GoldenTargetCache, IsWrittenTheSame) {
  auto files = OpenModel(Golden("target_qwen3"));
  ASSERT_TRUE(files.ok()) << files.error().text;
  ThreadPool pool(2);
  auto target = LoadTarget(*files, pool, {.max_context = 96, .max_taps = 4, .kv_type = KvType::kF32});
  ASSERT_TRUE(target.ok()) << target.error().text;
  BlockPool blocks((*target)->kv_layout(), Teacher::BlocksFor(**target, 96));
  Teacher teacher(**target, blocks, {1, 3, 5});

  test::TempDir out;
  CacheJob job{.inputs = {Golden("target_cache/source.jsonl")},
               .out = out.path() + "/cache",
               .rows = {.format = *ChooseTrainTemplate("qwen", "", files->chat_template), .max_length = 96},
               .settings = {}};
  CacheManifest& manifest = job.settings.manifest;
  manifest.shape = {{1, 3, 5}, 64, 512, "target_qwen3"};
  manifest.sources = {"target_cache/source.jsonl"};
  manifest.chat_template = "qwen";
  manifest.max_length = 96;
  manifest.min_loss_tokens = kMinLossTokens;
  manifest.project_name = "golden";
  manifest.exp_name = "tiny";
  manifest.git_sha = "unknown";
  if (GetParam() == std::string("two_shards")) job.settings.max_shard_bytes = 60000;
  const auto summary = WriteCache(job, teacher, *files->tokenizer, [](const CacheProgress&) {});
  ASSERT_TRUE(summary.ok()) << summary.error().text;
  EXPECT_EQ(summary->short_rows, 1);

  EXPECT_EQ(ReadAll(job.out + "/samples.idx"), ReadAll(dir() + "/samples.idx"));
  EXPECT_EQ(ReadAll(job.out + "/manifest.json"), ReadAll(dir() + "/manifest.json"));
  auto ours = TargetCache::Open(job.out), theirs = TargetCache::Open(dir());
  ASSERT_TRUE(ours.ok()) << ours.error().text;
  const auto mine = ours->Read({0, 1}), golden = theirs->Read({0, 1});
  for (size_t i = 0; i < 2; ++i) {
    const TrainSample &a = (*mine)[i], &b = (*golden)[i];
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_EQ(a.loss_mask, b.loss_mask);
    ASSERT_EQ(a.taps.size(), b.taps.size());
    int most = 0, differ = 0;
    const auto compare = [&](float x, float y) {
      // Values next to zero may differ by many steps of their own, but not by one of the rows' size.
      const int ulps = std::abs(x - y) < 1e-5f ? 0 : Ulps(x, y);
      most = std::max(most, ulps);
      differ += ulps != 0;
    };
    for (size_t k = 0; k < a.taps.size(); ++k) compare(a.taps[k], b.taps[k]);
    for (size_t k = 0; k < a.last_hidden.size(); ++k) compare(a.last_hidden[k], b.last_hidden[k]);
    EXPECT_LE(most, 1);
    EXPECT_LT(differ, int(a.taps.size() / 100));
  }
}

}  // namespace
}  // namespace dspark

#include "data/live_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "core/float16.h"
#include "core/rng.h"
#include "data/compact_sample.h"
#include "data/tap_choice.h"
#include "data/target_cache.h"
#include "data/write_cache.h"
#include "tiny_model.h"

namespace dspark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

test::TinyModelOptions Options(int max_rows, int blocks) {
  test::TinyModelOptions options;
  options.shape.layers = 3;
  options.max_rows = max_rows;
  options.blocks = blocks;
  options.max_taps = 3;
  return options;
}

std::vector<TrainTokens> RandomSamples(int vocab, std::initializer_list<int> lengths) {
  std::vector<TrainTokens> samples;
  uint64_t n = 0;
  for (const int length : lengths) {
    TrainTokens tokens;
    for (int i = 0; i < length; ++i) {
      tokens.ids.push_back(int32_t(UniformFloat(1, ++n, Purpose::kTest) * float(vocab)));
      tokens.loss_mask.push_back(i > 2);
    }
    samples.push_back(tokens);
  }
  return samples;
}

// The target's own word for one sample: [T, taps * d] of all asked layers.
std::vector<float> Direct(test::TinyModel& model, const TrainTokens& tokens, std::vector<int> taps) {
  KvTable kv(*model.blocks);
  EXPECT_TRUE(kv.Reserve(int(tokens.ids.size())));
  std::vector<float> values;
  for (int at = 0; at < int(tokens.ids.size()); ++at) {
    const Segment segment{
        .tokens = std::span(tokens.ids).subspan(size_t(at), 1), .position = at, .kv = &kv, .logits_from = 1};
    const ForwardOutput output = model.target->Forward({&segment, 1}, taps);
    values.insert(values.end(), output.taps, output.taps + output.taps_stride);
  }
  return values;
}

// Lists against the whole distribution, row by row; passes of 24 rows cut the longer samples.
TEST(TeacherTest, ListsAreTheTargetsLikeliestTokens) {
  constexpr int kTop = 5;
  test::TinyModel model(Options(24, 64));
  auto samples = RandomSamples(model.vocab(), {40, 3, 30});
  for (int i = 12; i < 20; ++i) samples[0].loss_mask[size_t(i)] = 0;
  Teacher teacher(*model.target, *model.blocks, {1}, kTop);
  const TrainTokens* asked[] = {&samples[0], &samples[1], &samples[2]};
  const auto run = teacher.Run(asked);
  ASSERT_TRUE(run.ok()) << run.error().text;
  for (size_t s = 0; s < samples.size(); ++s) {
    const TrainTokens& tokens = samples[s];
    ASSERT_EQ((*run)[s].top.ids.size(), tokens.ids.size() * kTop);
    KvTable kv(*model.blocks);
    ASSERT_TRUE(kv.Reserve(int(tokens.ids.size())));
    for (int row = 0; row < int(tokens.ids.size()); ++row) {
      SCOPED_TRACE(fmt::format("sample {}, row {}", s, row));
      const Segment segment{
          .tokens = std::span(tokens.ids).subspan(size_t(row), 1), .position = row, .kv = &kv};
      const float* logits = model.target->Forward({&segment, 1}, {}).logits;
      double sum = 0;
      for (int id = 0; id < model.vocab(); ++id) sum += std::exp(double(logits[id]));
      std::vector<int32_t> ids(size_t(model.vocab()));
      std::iota(ids.begin(), ids.end(), 0);
      std::ranges::stable_sort(ids, std::ranges::greater(), [&](int32_t id) { return logits[id]; });
      const bool kept = IsTeacherRow(tokens.loss_mask, row);
      for (int j = 0; j < kTop; ++j) {
        const size_t at = size_t(row * kTop + j);
        EXPECT_EQ((*run)[s].top.ids[at], kept ? ids[size_t(j)] : 0);
        EXPECT_NEAR((*run)[s].top.log_p[at], kept ? double(logits[ids[size_t(j)]]) - std::log(sum) : 0, 1e-5);
      }
    }
  }
}

TEST(LiveSourceTest, BatchesEqualOneRowAtATime) {
  // Passes of 24 rows cut samples in the middle; 7 blocks of 16 positions do not hold all that rows allow.
  for (const auto& [rows, blocks] : {std::pair(24, 64), std::pair(64, 7)}) {
    test::TinyModel model(Options(rows, blocks));
    const auto samples = RandomSamples(model.vocab(), {1, 30, 5, 70, 2, 2, 2, 2, 2, 40});
    auto source = LiveSource::Make(samples, Teacher(*model.target, *model.blocks, {-1, 1}), "tiny");
    ASSERT_TRUE(source.ok()) << source.error().text;
    EXPECT_EQ((*source)->size(), 10);
    EXPECT_EQ((*source)->shape().vocab, model.vocab());
    const std::vector<int64_t> indices = {3, 9, 0, 1, 2, 4, 5, 6, 7, 8, 3};
    const auto read = (*source)->Read(indices), tokens_only = (*source)->ReadTokens(indices);
    ASSERT_TRUE(read.ok()) << read.error().text;
    ASSERT_TRUE(tokens_only.ok());
    ASSERT_EQ(model.blocks->free_blocks(), blocks);
    for (size_t i = 0; i < indices.size(); ++i) {
      const TrainSample& sample = (*read)[i];
      const TrainTokens& tokens = samples[size_t(indices[i])];
      EXPECT_EQ(sample.id, indices[i]);
      EXPECT_EQ(sample.ids, tokens.ids);
      EXPECT_EQ(sample.loss_mask, tokens.loss_mask);
      EXPECT_EQ((*tokens_only)[i].id, indices[i]);
      EXPECT_EQ((*tokens_only)[i].ids, tokens.ids);
      EXPECT_EQ((*tokens_only)[i].loss_mask, tokens.loss_mask);
      const auto direct = Direct(model, tokens, {-1, 1, 3});
      const size_t d = 64;
      ASSERT_EQ(sample.taps.size(), tokens.ids.size() * 2 * d);
      for (size_t t = 0; t < tokens.ids.size(); ++t) {
        EXPECT_TRUE(std::equal(&direct[t * 3 * d], &direct[t * 3 * d] + 2 * d, &sample.taps[t * 2 * d]));
        EXPECT_TRUE(
            std::equal(&direct[(t * 3 + 2) * d], &direct[(t * 3 + 2) * d] + d, &sample.last_hidden[t * d]));
      }
    }
  }
}

TEST(LiveSourceTest, TheFinalNormCanBeTapped) {
  test::TinyModel model(Options(64, 64));
  auto source =
      LiveSource::Make(RandomSamples(model.vocab(), {9}), Teacher(*model.target, *model.blocks, {3}), "");
  const auto read = (*source)->Read({0});
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)[0].taps, (*read)[0].last_hidden);
}

TEST(LiveSourceTest, LastHiddenAlone) {
  test::TinyModel model(Options(64, 64));
  const auto read = [&](const std::vector<int>& taps) {
    auto source =
        LiveSource::Make(RandomSamples(model.vocab(), {9}), Teacher(*model.target, *model.blocks, taps), "");
    return (*source)->Read({0}).value()[0];
  };
  EXPECT_TRUE(read({}).taps.empty());
  EXPECT_EQ(read({}).last_hidden, read({1}).last_hidden);
}

TEST(LiveSourceTest, RefusesWhatDoesNotFit) {
  test::TinyModel model(Options(64, 4));
  const Teacher teacher(*model.target, *model.blocks, {1});
  const auto error = [&](std::vector<TrainTokens> samples) {
    return LiveSource::Make(std::move(samples), teacher, "").error().text;
  };
  EXPECT_THAT(error(RandomSamples(model.vocab(), {3, 65})), HasSubstr("sample 1 has 65 tokens"));
  EXPECT_THAT(error({{{5, model.vocab()}, {0, 1}}}), HasSubstr("vocabulary"));
  EXPECT_THAT(error({{}}), HasSubstr("no tokens"));
}

// The whole way from JSONL to either form of a cache, against the live source over the same rows.
TEST(WriteCacheTest, EqualsTheLiveSource) {
  test::TinyModel model(Options(64, 256));
  const std::string in = model.dir.path() + "/in.jsonl";
  std::ofstream file(in);
  for (int i = 0; i < 30; ++i) {
    file << fmt::format(
        R"({{"id":{},"messages":[{{"role":"user","content":"number {}?"}},{{"role":"assistant","content":"{}"}}]}})"
        "\n",
        i, i, i % 5 == 0 ? "no" : "it is the number of the row");
  }
  file << "no row\n";
  file.close();
  Teacher teacher(*model.target, *model.blocks, {0, 1});
  TrainRowOptions options;
  options.max_length = 60;
  options.rejected = model.dir.path() + "/rejected.jsonl";
  CacheJob job{.inputs = {in}, .out = model.dir.path() + "/cache", .rows = options, .settings = {}};
  job.settings.manifest.shape = {teacher.tap_layers(), 64, model.vocab(), "tiny"};
  int64_t last_rows = 0;
  const auto progress = [&](const CacheProgress& now) { last_rows = now.rows; };

  TrainRows rows({in}, *model.files.tokenizer, options);
  auto live = LiveSource::Make(*ReadTrainTokens(rows), teacher, "tiny");
  for (const CacheForm form : {CacheForm::kDeepSpec, CacheForm::kCompact}) {
    job.settings.manifest.form = form;
    RemoveCache(job.out);
    const auto summary = WriteCache(job, teacher, *model.files.tokenizer, progress);
    ASSERT_TRUE(summary.ok()) << summary.error().text;
    EXPECT_EQ(summary->samples, 24);
    EXPECT_EQ(summary->short_rows, 6);
    EXPECT_THAT(summary->first_rejected, ElementsAre(in + ":31: not JSON"));
    EXPECT_EQ(last_rows, 31);
    EXPECT_TRUE(std::filesystem::exists(options.rejected));
    auto cache = TargetCache::Open(job.out);
    ASSERT_TRUE(cache.ok()) << cache.error().text;
    ASSERT_EQ(cache->size(), (*live)->size());
    const auto cached = cache->Read({0, 13, 23}), computed = (*live)->Read({0, 13, 23});
    for (size_t i = 0; i < 3; ++i) {
      const TrainSample &a = (*cached)[i], &b = (*computed)[i];
      EXPECT_EQ(a.ids, b.ids);
      EXPECT_EQ(a.loss_mask, b.loss_mask);
      const auto narrowed = [](float x) { return Bf16ToFloat(FloatToBf16(x)); };
      if (form == CacheForm::kDeepSpec) {
        EXPECT_TRUE(std::ranges::equal(a.taps, b.taps, {}, {}, narrowed));
      }
      for (size_t t = 3; t < b.ids.size(); ++t) {
        if (!b.loss_mask[t]) continue;
        EXPECT_EQ(a.last_hidden[t * 64 + 7], narrowed(b.last_hidden[t * 64 + 7]));
      }
    }
  }
  job.rows.min_loss_tokens = 1000;
  RemoveCache(job.out);
  EXPECT_THAT(WriteCache(job, teacher, *model.files.tokenizer, progress).error().text,
              HasSubstr("no row has 1000"));
  EXPECT_TRUE(std::filesystem::is_empty(job.out)) << "a call that asks for less is not refused";
}

std::string Row(const std::string& answer) {
  return fmt::format(
      R"({{"messages":[{{"role":"user","content":"z"}},{{"role":"assistant","content":"{}"}}]}})"
      "\n",
      answer);
}

// DeepSpec's bound: 12 bytes that no merge joins, the end of the turn and its newline are 14 tokens.
TEST(WriteCacheTest, LeavesOutThirteenSupervisedTokensAndKeepsFourteen) {
  test::TinyModel model;
  const std::string in =
      test::WriteFile(model.dir.path() + "/in.jsonl", Row(std::string(11, 'z')) + Row(std::string(12, 'z')));
  TrainRows rows({in}, *model.files.tokenizer, {});
  const auto kept = ReadTrainTokens(rows);
  ASSERT_TRUE(kept.ok());
  ASSERT_EQ(kept->size(), 1u);
  EXPECT_EQ((*kept)[0].LossTokens(), 14);
  EXPECT_EQ(rows.short_rows(), 1);
}

TEST(WriteCacheTest, NoticesOtherInputs) {
  test::TinyModel model(Options(64, 256));
  const std::string in = model.dir.path() + "/in.jsonl";
  const std::string first = "the answer to the first", second = "the answer to the other";
  test::WriteFile(in, Row(first));
  Teacher teacher(*model.target, *model.blocks, {0});
  CacheJob job{.inputs = {in}, .out = model.dir.path() + "/cache", .rows = {}, .settings = {}};
  job.settings.manifest.shape = {teacher.tap_layers(), 64, model.vocab(), "tiny"};
  const auto write = [&] {
    return WriteCache(job, teacher, *model.files.tokenizer, [](const CacheProgress&) {});
  };
  ASSERT_TRUE(write().ok());
  EXPECT_TRUE(write()->was_there);
  test::WriteFile(in, Row(second));
  EXPECT_THAT(write().error().text, HasSubstr("made from other inputs"));
  job.out = model.dir.path() + "/begun";
  const auto stop = [](const CacheProgress& now) {
    if (now.samples > 0) throw std::runtime_error("killed");
  };
  EXPECT_THROW(WriteCache(job, teacher, *model.files.tokenizer, stop).ok(), std::runtime_error);
  test::WriteFile(in, Row(first));
  EXPECT_THAT(write().error().text, HasSubstr("was begun with other inputs"));
  job.rows.rejected = test::WriteFile(model.dir.path() + "/foreign.jsonl", "{\"where\": 1}\n");
  EXPECT_THAT(write().error().text, HasSubstr("foreign.jsonl: stands where rows"));
  EXPECT_EQ(std::filesystem::file_size(job.rows.rejected), 13u);
  test::WriteFile(job.rows.rejected, "{\"where\":\"\",\"reason\":\"\",\"row\":\"\"}\n");
  EXPECT_TRUE(CheckOutputs(job).ok());
  job.rows.rejected = in;
  EXPECT_THAT(write().error().text, HasSubstr("would be replaced by the rows"));
}

// A target whose hidden states overflow in one layer of one row, or whose logits are others.
class OverflowingTarget : public Target {
 public:
  explicit OverflowingTarget(Target& inner) : inner_(inner) {}
  const ModelConfig& config() const override { return inner_.config(); }
  const TargetLimits& limits() const override { return inner_.limits(); }
  KvLayout kv_layout() const override { return inner_.kv_layout(); }
  TargetMemory memory() const override { return inner_.memory(); }
  const PackedMatrix& embedding() const override { return inner_.embedding(); }
  const PackedMatrix& head() const override { return inner_.head(); }
  Isa isa() const override { return inner_.isa(); }

  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override {
    ForwardOutput output = inner_.Forward(segments, tap_layers);
    int rows = 0;
    for (const Segment& segment : segments) rows += int(segment.tokens.size());
    taps_.assign(output.taps, output.taps + size_t(rows) * output.taps_stride);
    if (logits.empty()) taps_[broken] = INFINITY;
    output.taps = taps_.data();
    if (logits.empty()) return output;
    output.logits = logits.data();
    output.logits_stride = 0;  // the same in all rows
    return output;
  }
  size_t broken = 0;
  std::vector<float> logits;

 private:
  Target& inner_;
  std::vector<float> taps_;
};

TEST(LiveSourceTest, RefusesStatesThatAreNotFinite) {
  test::TinyModel model(Options(64, 64));
  OverflowingTarget target(*model.target);
  // [rows, 2 * 64]: in the tapped layer of row 0; in the last hidden of row 1.
  for (const size_t broken : {3, 3 * 64 + 5}) {
    target.broken = broken;
    auto source =
        LiveSource::Make(RandomSamples(model.vocab(), {4}), Teacher(target, *model.blocks, {1}), "");
    EXPECT_THAT((*source)->Read({0}).error().text, HasSubstr("not finite"));
  }
}

TEST(TeacherTest, ListsAreProbabilitiesThatFitIntoHalfs) {
  test::TinyModel model(Options(24, 64));
  OverflowingTarget target(*model.target);
  Teacher teacher(target, *model.blocks, {1}, 2);
  const auto samples = RandomSamples(model.vocab(), {6});
  const TrainTokens* asked[] = {&samples[0]};
  target.logits.assign(size_t(model.vocab()), -1e6f);
  target.logits[7] = 0;
  const auto run = teacher.Run(asked);
  ASSERT_TRUE(run.ok()) << run.error().text;
  const TopTokens& top = (*run)[0].top;
  EXPECT_EQ(top.ids[5 * 2], 7);
  EXPECT_EQ(top.log_p[5 * 2], 0);
  EXPECT_EQ(top.log_p[5 * 2 + 1], -1e4f);
  for (const float wrong : {NAN, INFINITY}) {
    target.logits[9] = wrong;
    EXPECT_THAT(teacher.Run(asked).error().text, HasSubstr("logits that are not finite"));
  }
}

TEST(TapChoiceTest, SpreadsAndParses) {
  EXPECT_THAT(AutoTaps(30), ElementsAre(1, 8, 14, 20, 27));  // halves to even, as Python rounds
  EXPECT_THAT(AutoTaps(36), ElementsAre(1, 9, 17, 25, 33));
  EXPECT_THAT(AutoTaps(8), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(AutoTaps(7), ElementsAre(0, 1, 2, 4, 5));
  EXPECT_THAT(AutoTaps(3), ElementsAre(0, 1));
  EXPECT_THAT(AutoTaps(2), ElementsAre(0));
  EXPECT_THAT(AutoTaps(1), ElementsAre(-1));
  EXPECT_THAT(*ParseTaps("-1,3,28,30", 30), ElementsAre(-1, 3, 28, 30));
  for (const char* wrong : {"", "1,", "2,1", "1,1", "29", "31", "-2", "1;2", "a"})
    EXPECT_THAT(ParseTaps(wrong, 30).error().text, HasSubstr("--taps")) << wrong;
}

}  // namespace
}  // namespace dspark

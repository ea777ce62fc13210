#include "train/open_source.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/write_cache.h"
#include "load/json_file.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"
#include "train/trainer.h"

namespace dspark::test {
namespace {

constexpr char kRow[] =
    R"({"conversations": [{"role": "user", "content": "hi"}, )"
    R"({"role": "assistant", "content": "The sea is wide and the wind is in the west."}]})";
constexpr char kShortRow[] = R"({"messages": [{"role": "user", "content": "hi"}, )"
                             R"({"role": "assistant", "content": "Yes."}]})";

std::string ErrorOf(const Result<std::unique_ptr<TrainingData>>& result) {
  return result.ok() ? "" : result.error().text;
}

class OpenSource : public testing::Test {
 protected:
  OpenSource() {
    config_.target = WriteTinyLlamaGguf(dir_.path(), 3, TinyLlama{.layers = 4});
    config_.taps = {0, 1, 2};
    config_.markov_rank = 8;
    config_.batch = config_.group = 2;
    config_.threads = 1;
    config_.data = {Write("rows.jsonl", std::string(kRow) + "\n" + kRow + "\n")};
    target_ = OpenModel(config_.target).value();
  }
  std::string Write(const std::string& name, const std::string& text) {
    return WriteFile(dir_.path() + "/" + name, text);
  }
  Result<std::unique_ptr<TrainingData>> Open() { return TrainingData::Open(config_, target_, config_.taps); }
  // The rows as a cache that says it is for `name`.
  std::string WriteTheCache(CacheForm form, const std::string& name, int top = 0) {
    ThreadPool pool(1);
    const auto target =
        LoadTarget(target_, pool, {.max_rows = 64, .max_context = 128, .max_taps = 4}).value();
    BlockPool blocks(target->kv_layout(), Teacher::BlocksFor(*target, 128));
    Teacher teacher(*target, blocks, config_.taps, top);
    CacheJob job{.inputs = config_.data,
                 .out = fmt::format("{}/cache{}_{}", dir_.path(), int(form), top),
                 .rows = {.format = ChooseTrainTemplate("model", "", target_.chat_template).value(),
                          .max_length = 128},
                 .settings = {}};
    job.settings.manifest.form = form;
    job.settings.manifest.shape = {config_.taps, target_.config.d_model, target_.config.vocab, name, top};
    EXPECT_TRUE(WriteCache(job, teacher, *target_.tokenizer, [](const CacheProgress&) {}).ok());
    return job.out;
  }

  TempDir dir_;
  TrainConfig config_;
  ModelFiles target_;
};

TEST_F(OpenSource, TrainsFromCachesOfBothForms) {
  for (const CacheForm form : {CacheForm::kDeepSpec, CacheForm::kCompact}) {
    TrainConfig config = config_;
    config.data = {WriteTheCache(form, config_.target)};
    const auto data = TrainingData::Open(config, target_, config_.taps);
    ASSERT_TRUE(data.ok()) << data.error().text;
    const auto trainer = Trainer::Make(config, target_, (*data)->source());
    ASSERT_TRUE(trainer.ok()) << trainer.error().text;
    EXPECT_GT((*trainer)->Step().value().anchors, 10);
  }
}

// Rows and weights reach to the conversation's end, which a compact cache does not hold: one with a last turn
// of the user's, one that is cut at the most tokens.
TEST_F(OpenSource, Eagle3LearnsTheSameFromBothForms) {
  const std::string turn =
      R"({"role": "user", "content": "And where does it come from, and where does it go?"}]})";
  const std::string row(kRow);
  const std::string open = row.substr(0, row.size() - 2) + ", " + turn;
  std::string cut = row;
  cut.insert(cut.find("The sea"), std::string(200, 'z'));
  config_.data = {Write("ends.jsonl", open + "\n" + cut + "\n")};
  const auto step = [&](CacheForm form) {
    TrainConfig config = DefaultsOf("eagle3");
    config.target = config_.target;
    config.data = {WriteTheCache(form, config_.target)};
    config.taps = config_.taps;
    config.batch = config.group = 2;
    config.threads = 1;
    config.precision = "f32";
    const auto data = TrainingData::Open(config, target_, config.taps).value();
    return Trainer::Make(config, target_, data->source()).value()->Step().value();
  };
  const StepReport whole = step(CacheForm::kDeepSpec), compact = step(CacheForm::kCompact);
  EXPECT_EQ(compact.anchors, whole.anchors);
  EXPECT_NEAR(compact.loss, whole.loss, 2e-3 * whole.loss);  // 8-bit taps
}

TEST_F(OpenSource, RefusesTheFirstCompactVersionForEagle3) {
  config_.data = {WriteTheCache(CacheForm::kCompact, config_.target)};
  const std::string path = config_.data[0] + "/manifest.json";
  nlohmann::json manifest = ReadJsonObject(path).value();
  manifest["version"] = 1;
  Write(std::filesystem::relative(path, dir_.path()), manifest.dump());
  EXPECT_EQ(ErrorOf(Open()), "");
  config_.kind = "eagle3";
  EXPECT_NE(ErrorOf(Open()).find("version 1"), std::string::npos) << ErrorOf(Open());
}

// A step with all tokens listed is the step with the last hidden states, but for what 16 bits lose of either.
TEST_F(OpenSource, ListsOfAllTokensTrainAsHiddenStates) {
  const auto step = [&](int top) {
    TrainConfig config = config_;
    config.data = {WriteTheCache(CacheForm::kCompact, config_.target, top)};
    config.precision = "f32";
    const auto data = TrainingData::Open(config, target_, config_.taps).value();
    EXPECT_EQ(
        TeacherText(data->source().shape()),
        top == 0 ? "the target's whole distribution" : fmt::format("the target's {} likeliest tokens", top));
    return Trainer::Make(config, target_, data->source()).value()->Step().value();
  };
  const StepReport hidden = step(0), all = step(target_.config.vocab), few = step(1);
  EXPECT_NEAR(all.loss, hidden.loss, 2e-3);
  EXPECT_NEAR(all.metrics.Tau(), hidden.metrics.Tau(), 2e-3);
  EXPECT_GT(few.metrics.L1(), hidden.metrics.L1() + 1e-3);
}

TEST_F(OpenSource, GoesOnWithTheSameTeacherOnly) {
  TrainConfig config = config_;
  const auto resume = [&](int top) {
    config.data = {WriteTheCache(CacheForm::kCompact, config_.target, top)};
    std::filesystem::rename(config.data[0], dir_.path() + "/cache");
    config.data = {dir_.path() + "/cache"};
    const auto data = TrainingData::Open(config, target_, config_.taps).value();
    const auto trainer = Trainer::Make(config, target_, data->source()).value();
    const auto resumed = trainer->Resume(dir_.path() + "/out");
    const std::string error = resumed.ok() ? "" : resumed.error().text;
    EXPECT_TRUE(!resumed.ok() || (trainer->Step().ok() && trainer->Save(dir_.path() + "/out").ok()));
    std::filesystem::remove_all(dir_.path() + "/cache");
    return error;
  };
  config.epochs = 3;
  EXPECT_EQ(resume(4), "");
  EXPECT_EQ(resume(4), "");
  EXPECT_NE(resume(5).find("teacher_top_k"), std::string::npos);
}

TEST_F(OpenSource, RefusesTheCacheOfAnotherTarget) {
  config_.data = {WriteTheCache(CacheForm::kDeepSpec, "org/other")};
  EXPECT_NE(ErrorOf(Open()).find("cache_target=org/other"), std::string::npos) << ErrorOf(Open());
  config_.cache_target = "org/other";
  EXPECT_EQ(ErrorOf(Open()), "");
  config_.cache_target = "org/third";
  EXPECT_NE(ErrorOf(Open()).find("org/third"), std::string::npos) << ErrorOf(Open());
}

TEST_F(OpenSource, SaysWhichRowsAreLeftOut) {
  EXPECT_TRUE(Open().value()->messages().empty());
  config_.data = {Write("some.jsonl", std::string("what?\n") + kRow + "\n" + kShortRow + "\n" + kRow + "\n")};
  const auto data = Open().value();
  EXPECT_EQ(data->source().size(), 2);
  ASSERT_EQ(data->messages().size(), 3u);
  EXPECT_TRUE(data->messages()[0].starts_with(config_.data[0] + ":1: ")) << data->messages()[0];
  EXPECT_EQ(data->messages()[1], "1 of 4 rows cannot be used");
  EXPECT_EQ(data->messages()[2], "1 of 4 rows left out with less than 14 supervised tokens");
}

TEST_F(OpenSource, SaysWhatIsExpectedWhereNoRowIsASample) {
  for (const std::string text : {"", "\x01\x02 no JSON\n", kShortRow}) {
    config_.data = {Write("x.bin", text)};
    const std::string error = ErrorOf(Open());
    EXPECT_TRUE(error.starts_with(config_.data[0] + ": ")) << error;
    const char* cure = text == kShortRow ? "raise max_length" : "expected JSONL";
    EXPECT_NE(error.find(cure), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

TEST(GoldenOpenSource, TrainsFromDeepSpecsCache) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/target_cache");
  const ModelFiles target = OpenModel(GoldenDir() + "/drafters/target_qwen3").value();
  TrainConfig config;
  config.target = "target_qwen3";
  config.data = {GoldenDir() + "/drafters/target_cache/one_shard"};
  config.taps = {1, 3, 5};
  config.markov_rank = 16;
  config.batch = config.group = 2;
  config.epochs = 10;
  config.threads = 1;
  config.learning_rate = 1e-2;
  config.draft_vocab = 200;
  const auto data = TrainingData::Open(config, target, config.taps);
  ASSERT_TRUE(data.ok()) << data.error().text;
  const auto trainer = Trainer::Make(config, target, (*data)->source());
  ASSERT_TRUE(trainer.ok()) << trainer.error().text;
  const double first = (*trainer)->Step().value().loss;
  double last = first;
  while ((*trainer)->step() < (*trainer)->total_steps()) last = (*trainer)->Step().value().loss;
  EXPECT_LT(last, 0.8 * first);
}

}  // namespace
}  // namespace dspark::test

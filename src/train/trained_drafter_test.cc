// Drafters that have learnt for a few steps, in the engine: they draft better than before and change nothing
// else.
#include <gtest/gtest.h>

#include <fstream>

#include "core/rng.h"
#include "data/live_source.h"
#include "data/write_cache.h"
#include "draft/registry.h"
#include "replies.h"
#include "train/open_source.h"
#include "train/trainer.h"

namespace dspark::test {
namespace {

constexpr int kLayers = 4, kPrompt = 8, kReply = 40;

Request RandomRequest(uint64_t seed) {
  Request request;
  for (uint64_t i = 0; i < kPrompt; ++i)
    request.prompt.push_back(int32_t(3 + UniformFloat(seed, i, Purpose::kTest) * 250));
  request.max_tokens = kReply;
  request.ignore_eos = true;
  request.sampling.temperature = 0;
  return request;
}

class TrainedDrafter : public testing::TestWithParam<const char*> {
 protected:
  TrainedDrafter() : model_({.shape = {.layers = kLayers}, .max_taps = 6}) {}

  // The target as its own teacher: its greedy replies.
  std::unique_ptr<SampleSource> Replies(const std::vector<int>& taps, int count) {
    std::vector<TrainTokens> samples;
    for (int i = 0; i < count; ++i) {
      const Request request = RandomRequest(uint64_t(i));
      TrainTokens sample{request.prompt, {}};
      const std::vector<int32_t> reply = Plain(model_, request).tokens;
      sample.ids.insert(sample.ids.end(), reply.begin(), reply.end());
      sample.loss_mask.assign(sample.ids.size(), 1);
      std::fill_n(sample.loss_mask.begin(), kPrompt, uint8_t{0});
      samples.push_back(std::move(sample));
    }
    return LiveSource::Make(std::move(samples), Teacher(*model_.target, *model_.blocks, taps), "tiny")
        .value();
  }

  // τ of greedy replies to prompts with these seeds, all of which stay what they are without drafts.
  double Tau(const std::string& drafter_dir, int first, int count) {
    const auto drafter = LoadDrafter(OpenDrafter(drafter_dir).value(), *model_.target, model_.pool,
                                     {.max_sequences = 1, .max_context = 128, .block_tokens = 16})
                             .value();
    int rounds = 0, committed = 0;
    for (int i = 0; i < count; ++i) {
      const Request request = RandomRequest(uint64_t(first + i));
      Engine engine(*model_.target, *model_.blocks, drafter.get(), model_.files.tokenizer.get(), CheapRows(),
                    {.fixed_draft = drafter->max_tokens()});
      const Reply reply = RunOne(engine, request);
      EXPECT_EQ(reply.tokens, Plain(model_, request).tokens);
      rounds += reply.stats.rounds;
      committed += reply.stats.committed;
    }
    return double(committed) / rounds;
  }

  TinyModel model_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, TrainedDrafter, testing::Values("eagle3", "mtp"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST_P(TrainedDrafter, DraftsBetterThanUntrained) {
  TrainConfig config = DefaultsOf(GetParam());
  config.batch = config.group = 8;
  config.steps = 60;
  config.learning_rate = 1e-2;
  config.ttt_steps = 3;
  config.threads = 2;
  const DrafterConfig drafter = DrafterFor(config, model_.files.config).value();
  const auto source = Replies(drafter.taps, 24);
  const auto trainer = Trainer::Make(config, model_.files, *source).value();
  const std::string out = model_.dir.path() + "/" + GetParam();
  ASSERT_TRUE(trainer->Save(out).ok());
  const double before = Tau(out + "/step_latest", 0, 12);
  while (trainer->step() < trainer->total_steps()) ASSERT_TRUE(trainer->Step().ok());
  ASSERT_TRUE(trainer->Save(out).ok());
  const double after = Tau(out + "/step_latest", 0, 12);
  fmt::print("{}: τ {:.2f} before, {:.2f} after\n", GetParam(), before, after);
  EXPECT_GT(after, before + 0.5);
}

// MTP reads the last hidden state of every row, which a compact cache does not hold.
TEST(TrainingDataTest, CachesForMtp) {
  TinyModel model({.shape = {.layers = kLayers}, .max_taps = 6});
  const std::string in = model.dir.path() + "/in.jsonl";
  std::ofstream file(in);
  for (int i = 0; i < 8; ++i) {
    file << R"({"messages":[{"role":"user","content":"a number"},{"role":"assistant","content":"it is )" << i
         << R"( and not another number"}]})"
         << "\n";
  }
  file.close();
  Teacher teacher(*model.target, *model.blocks, {0, 1});
  CacheJob job{.inputs = {in}, .out = model.dir.path() + "/cache", .rows = {}, .settings = {}};
  job.settings.manifest.shape = {teacher.tap_layers(), 64, model.vocab(), "tiny"};
  TrainConfig config = DefaultsOf("mtp");
  config.data = {job.out};
  config.target = "tiny";  // as the cache says
  config.batch = config.group = 8;
  for (const CacheForm form : {CacheForm::kDeepSpec, CacheForm::kCompact}) {
    job.settings.manifest.form = form;
    RemoveCache(job.out);
    ASSERT_TRUE(WriteCache(job, teacher, *model.files.tokenizer, [](const CacheProgress&) {}).ok());
    const auto data = TrainingData::Open(config, model.files, {});
    ASSERT_EQ(data.ok(), form == CacheForm::kDeepSpec);
    if (data.ok()) {
      EXPECT_TRUE(Trainer::Make(config, model.files, (*data)->source()).ok());
    } else {
      EXPECT_NE(data.error().text.find("--compact"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace dspark::test

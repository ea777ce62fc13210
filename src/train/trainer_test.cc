#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "core/rng.h"
#include "load/drafter_tensors.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"
#include "train/parameters.h"

namespace dspark::test {
namespace {

constexpr int kTaps = 3;

// A text in which every token follows from the one before, and a target that knows it.
class CountingSource : public SampleSource {
 public:
  CountingSource(const ModelFiles& target, int64_t size) : size_(size) {
    shape_ = {.tap_layers = {0, 1, 2},
              .d_model = target.config.d_model,
              .vocab = target.config.vocab,
              .target_name = "counting"};
    const torch::Tensor table = TensorFrom(*target.weights->Find("token_embd.weight"));
    table_.assign(table.data_ptr<float>(), table.data_ptr<float>() + table.numel());
  }
  const SampleShape& shape() const override { return shape_; }
  int64_t size() const override { return size_; }
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    for (const int64_t index : indices) samples.push_back(Make(index));
    return samples;
  }
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override {
    std::vector<TrainSample> samples;
    for (const int64_t index : indices) {
      const TrainSample whole = Make(index);
      samples.push_back({index, whole.ids, whole.loss_mask, {}, {}});
    }
    return samples;
  }

 private:
  static int32_t Next(int32_t id) { return id * 5 % 13 + 3; }
  TrainSample Make(int64_t index) const {
    TrainSample s;
    s.id = index;
    const int length = 24 + int(index % 5) * 7;
    s.ids = {int32_t(3 + index % 13)};
    while (int(s.ids.size()) < length) s.ids.push_back(Next(s.ids.back()));
    s.loss_mask.assign(size_t(length), 1);
    for (int t = 0; t < 6; ++t) s.loss_mask[size_t(t)] = 0;
    for (const int32_t id : s.ids) {
      for (int tap = 0; tap < kTaps; ++tap) AppendRow(id, 1.0f + float(tap), &s.taps);
      AppendRow(Next(id), 40.0f, &s.last_hidden);
    }
    return s;
  }
  // The embedding's row at a length of `scale`.
  void AppendRow(int32_t id, float scale, std::vector<float>* out) const {
    const float* row = &table_[size_t(id) * size_t(shape_.d_model)];
    float squares = 0;
    for (int i = 0; i < shape_.d_model; ++i) squares += row[i] * row[i];
    for (int i = 0; i < shape_.d_model; ++i) out->push_back(row[i] * scale / std::sqrt(squares));
  }

  SampleShape shape_;
  int64_t size_;
  std::vector<float> table_;
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest()
      : target_(OpenModel(WriteTinyLlamaGguf(dir_.path(), 3, TinyLlama{.layers = 6})).value()),
        source_(target_, 40) {
    config_.taps = {0, 1, 2};
    config_.markov_rank = 16;
    config_.block_size = 4;
    config_.anchors = 8;
    config_.batch = 8;
    config_.group = 4;
    config_.epochs = 100;
    config_.steps = 30;
    config_.learning_rate = 1e-2;
    config_.ce_share = 1;
    config_.threads = 2;
    config_.precision = "bf16";
  }
  std::unique_ptr<Trainer> Make() { return Trainer::Make(config_, target_, source_).value(); }
  // Runs to the end; the reports of all steps.
  static std::vector<StepReport> Run(Trainer& trainer, int64_t until) {
    std::vector<StepReport> reports;
    while (trainer.step() < until) reports.push_back(trainer.Step().value());
    return reports;
  }
  static std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file.good()) << path;
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDir dir_;
  ModelFiles target_;
  CountingSource source_;
  TrainConfig config_;
};

TEST_F(TrainerTest, LearnsToDraft) {
  const auto trainer = Make();
  const auto reports = Run(*trainer, 30);
  EXPECT_LT(reports.front().metrics.Tau(), 1.5);
  EXPECT_GT(reports.back().metrics.Tau(), reports.front().metrics.Tau() + 1.5);
  EXPECT_LT(reports.back().loss, 0.7 * reports.front().loss);
  EXPECT_EQ(reports.front().anchors, 8 * 8);
}

TEST_F(TrainerTest, EveryKindOfDrafterLearns) {
  config_.steps = 10;
  for (const char* markov : {"none", "gated", "rnn"}) {
    SCOPED_TRACE(markov);
    config_.markov = markov;
    config_.confidence = config_.markov != "none";
    const auto trainer = Make();
    const auto reports = Run(*trainer, 10);
    EXPECT_LT(reports.back().loss, reports.front().loss);
  }
}

TEST_F(TrainerTest, GoesOnBitForBit) {
  for (const char* precision : {"f32", "bf16"}) {
    SCOPED_TRACE(precision);
    config_.precision = precision;
    const std::string whole = dir_.path() + "/whole", parts = dir_.path() + "/parts";
    const auto unbroken = Make();
    EXPECT_FALSE(unbroken->Resume(whole).value());
    const auto expected = Run(*unbroken, 7);
    ASSERT_TRUE(unbroken->Save(whole).ok());

    const auto first = Make();
    Run(*first, 4);
    ASSERT_TRUE(first->Save(parts).ok());
    Run(*first, 6);  // lost with the process
    const auto second = Make();
    ASSERT_TRUE(second->Resume(parts).value());
    ASSERT_EQ(second->step(), 4);
    const auto reports = Run(*second, 7);
    EXPECT_EQ(reports.back().loss, expected.back().loss);
    ASSERT_TRUE(second->Save(parts).ok());
    for (const char* file : {"model.safetensors", "training.safetensors", "config.json"}) {
      EXPECT_EQ(Bytes(whole + "/step_7/" + file), Bytes(parts + "/step_latest/" + file)) << file;
    }
    std::filesystem::remove_all(whole);
    std::filesystem::remove_all(parts);
  }
}

constexpr char kChildOut[] = "DSPARK_TEST_TRAIN_OUT";
constexpr int64_t kChildSteps = 6;

// What the next test starts and kills: a run that goes on from the last checkpoint. Nothing when run by
// itself.
TEST_F(TrainerTest, Child) {
  const std::string out = FromEnvironment(kChildOut, "");
  if (out.empty()) return;
  config_.steps = kChildSteps;
  const auto trainer = Make();
  ASSERT_TRUE(trainer->Resume(out).ok());
  while (trainer->step() < kChildSteps) {
    ASSERT_TRUE(trainer->Step().ok());
    ASSERT_TRUE(trainer->Save(out).ok());
  }
}

// Starts the child above and kills it after `ms`, or lets it end (ms < 0); true when it ended well.
bool RunChild(const std::string& out, int ms) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(kChildOut, out.c_str(), 1);
    execl("/proc/self/exe", "child", "--gtest_filter=TrainerTest.Child", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  if (ms >= 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    kill(child, SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(TrainerTest, KilledAtAnyMomentItEndsTheSame) {
  const std::string whole = dir_.path() + "/whole", killed = dir_.path() + "/killed";
  ASSERT_TRUE(RunChild(whole, -1));
  const int kills = std::stoi(FromEnvironment("DSPARK_TEST_KILLS", "5"));
  for (int i = 0; i < kills; ++i)
    RunChild(killed, 100 + int(UniformFloat(7, uint64_t(i), Purpose::kTest) * 1500));
  ASSERT_TRUE(RunChild(killed, -1));
  for (const char* file : {"model.safetensors", "training.safetensors", "training.json"}) {
    EXPECT_EQ(Bytes(whole + "/step_latest/" + file), Bytes(killed + "/step_latest/" + file)) << file;
  }
}

TEST_F(TrainerTest, CheckpointsAreDrafters) {
  config_.threads = 1;
  config_.checkpoints_kept = 2;
  for (const int draft_vocab : {0, 80}) {
    SCOPED_TRACE(draft_vocab);
    config_.draft_vocab = draft_vocab;
    const std::string out = dir_.path() + "/out" + std::to_string(draft_vocab);
    const auto trainer = Make();
    for (int64_t step = 1; step <= 3; ++step) {
      const auto reports = Run(*trainer, step);
      EXPECT_GT(reports.back().loss, 0);
      ASSERT_TRUE(trainer->Save(out).ok());
    }
    EXPECT_FALSE(std::filesystem::exists(out + "/step_1"));
    EXPECT_TRUE(std::filesystem::exists(out + "/step_2"));
    const auto files = OpenDrafter(out + "/step_latest");
    ASSERT_TRUE(files.ok()) << files.error().text;
    EXPECT_TRUE(CheckDrafterFits(*files, target_.config).ok());
    EXPECT_EQ(files->config.draft_to_target.size(), size_t(draft_vocab));
    EXPECT_EQ(files->config.taps, config_.taps);
    EXPECT_EQ(files->config.markov, MarkovHead::kVanilla);
    EXPECT_TRUE(files->config.confidence_with_markov);
    EXPECT_EQ(files->config.target_layers, 6);
  }
}

TEST_F(TrainerTest, ReducedVocabularyHoldsTheTextAndLearns) {
  config_.draft_vocab = 80;
  const auto trainer = Make();
  ASSERT_EQ(trainer->drafter().draft_to_target.size(), 80u);
  const auto reports = Run(*trainer, 30);
  EXPECT_GT(reports.back().metrics.Tau(), reports.front().metrics.Tau() + 1.5);
}

TEST_F(TrainerTest, StartsFromTheTargetsLayers) {
  config_.init_layers = {4, 5};
  config_.precision = "f32";  // stored as it is
  const auto trainer = Make();
  const std::string out = dir_.path() + "/init";
  ASSERT_TRUE(trainer->Save(out).ok());
  const DrafterFiles files = OpenDrafter(out + "/step_latest").value();
  const torch::Tensor ours = TensorFrom(*files.weights->Find("blk.1.ffn_up.weight"));
  EXPECT_TRUE(ours.equal(TensorFrom(*target_.weights->Find("blk.5.ffn_up.weight"))));
  const torch::Tensor q = TensorFrom(*files.weights->Find("blk.0.attn_q.weight"));
  const torch::Tensor stored = TensorFrom(*target_.weights->Find("blk.4.attn_q.weight"));
  EXPECT_TRUE(q[1].equal(stored[2]));  // Llama's GGUF keeps rope's pairs side by side
  EXPECT_TRUE(q[8].equal(stored[1]));
}

TEST_F(TrainerTest, RefusesWhatDoesNotFit) {
  const auto expect = [&](const std::string& what) {
    const auto made = Trainer::Make(config_, target_, source_);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().text.find(what), std::string::npos) << made.error().text;
  };
  config_.taps = {0, 1, 5};
  expect("taps");
  config_.taps = {0, 1, 3};
  expect("other taps");
  config_.taps = {0, 1, 2};
  config_.batch = config_.group = 41;
  expect("fewer than one batch");
  config_.batch = config_.group = 8;
  config_.init_layers = {1, 6};
  expect("layer 6");
}

TEST_F(TrainerTest, RefusesTheCheckpointOfAnotherRun) {
  const std::string out = dir_.path() + "/other";
  const auto trainer = Make();
  ASSERT_TRUE(trainer->Save(out).ok());
  config_.learning_rate = 1e-3;
  const auto resumed = Make()->Resume(out);
  ASSERT_FALSE(resumed.ok());
  EXPECT_NE(resumed.error().text.find("learning_rate"), std::string::npos);
}

TEST(TrainConfig, ReadsBackWhatItWrites) {
  TrainConfig config;
  config.target = "model.gguf";
  config.data = {"a.jsonl", "b.jsonl"};
  config.taps = {1, 2};
  config.learning_rate = 1e-3;
  const auto json = TrainConfigJson(config);
  const auto read = ParseTrainConfig(json, "x.json");
  ASSERT_TRUE(read.ok()) << read.error().text;
  EXPECT_EQ(TrainConfigJson(*read), json);
}

TEST(TrainConfig, NamesTheKeyThatIsWrong) {
  const std::pair<const char*, const char*> kWrong[] = {
      {R"({"layres": 2})", "no key layres"},      {R"({"layers": 2.5})", "layers is 2.5"},
      {R"({"layers": 0})", "layers is 0"},        {R"({"markov": "gru"})", "markov is \"gru\""},
      {R"({"taps": [1, "x"]})", "taps"},          {R"({"confidence": 1})", "confidence is 1"},
      {R"({"batch": 9, "group": 8})", "batch 9"}, {R"({"learning_rate": "x"})", "learning_rate"}};
  for (const auto& [text, what] : kWrong) {
    const auto read = ParseTrainConfig(nlohmann::json::parse(text), "x.json");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_NE(read.error().text.find(what), std::string::npos) << read.error().text;
    EXPECT_TRUE(read.error().text.starts_with("x.json")) << read.error().text;
  }
}

}  // namespace
}  // namespace dspark::test

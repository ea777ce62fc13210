#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>

#include "core/mapped_file.h"
#include "core/rng.h"
#include "counting_source.h"
#include "load/drafter_tensors.h"
#include "load/json_file.h"
#include "load/safetensors.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"
#include "train/parameters.h"

namespace dspark::test {
namespace {

class TrainerTest : public testing::Test {
 protected:
  TrainerTest()
      : target_(OpenModel(WriteTinyLlamaGguf(dir_.path(), 3, TinyLlama{.layers = 6})).value()),
        source_(target_, 40) {
    config_ = CountingConfig();
    config_.precision = "bf16";
  }
  // The same run of another kind of drafter.
  void SetKind(const std::string& kind) {
    TrainConfig config = DefaultsOf(kind);
    config.taps = config_.taps;
    config.batch = config_.batch;
    config.group = config_.group;
    config.epochs = config_.epochs;
    config.steps = config_.steps;
    config.learning_rate = config_.learning_rate;
    config.threads = config_.threads;
    config.precision = config_.precision;
    config.ttt_steps = 3;
    config_ = config;
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

TEST_F(TrainerTest, LearnsByTheLogarithmOfAcceptance) {
  config_.loss = "lk";
  const auto trainer = Make();
  const auto reports = Run(*trainer, 30);
  EXPECT_GT(reports.back().metrics.Tau(), reports.front().metrics.Tau() + 1.5);
}

TEST_F(TrainerTest, DraftersOfOneTokenAStepLearn) {
  for (const char* kind : {"eagle3", "mtp"}) {
    SetKind(kind);
    for (const int draft_vocab : {0, 80}) {
      SCOPED_TRACE(fmt::format("{}, {} ids", kind, draft_vocab));
      config_.draft_vocab = draft_vocab;
      const auto trainer = Make();
      const auto reports = Run(*trainer, 30);
      EXPECT_EQ(reports.back().metrics.gamma(), 3);
      EXPECT_LT(reports.front().metrics.Tau(), 1.5);
      EXPECT_GT(reports.back().metrics.Tau(), reports.front().metrics.Tau() + 1.5);
      EXPECT_GT(reports.back().metrics.AcceptRate(2), 0.5);
      EXPECT_LT(reports.back().loss, 0.7 * reports.front().loss);
      EXPECT_GT(reports.front().anchors, 150);  // most of some 300 tokens
    }
  }
}

TEST_F(TrainerTest, GoesOnBitForBit) {
  const std::pair<const char*, const char*> kRuns[] = {
      {"dspark", "f32"}, {"dspark", "bf16"}, {"eagle3", "bf16"}, {"mtp", "f32"}};
  for (const auto& [kind, precision] : kRuns) {
    SCOPED_TRACE(fmt::format("{} {}", kind, precision));
    if (config_.kind != kind) SetKind(kind);
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
  std::ofstream(out + ".starts", std::ios::app) << trainer->step() << std::endl;
  while (trainer->step() < kChildSteps) {
    ASSERT_TRUE(trainer->Step().ok());
    ASSERT_TRUE(trainer->Save(out).ok());
  }
}

// Starts the child above and kills it `ms` after the first checkpoint is there, or lets it end (ms < 0); true
// when it ended well.
bool RunChild(const std::string& out, int ms) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(kChildOut, out.c_str(), 1);
    execl("/proc/self/exe", "child", "--gtest_filter=TrainerTest.Child", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  int status = 0;
  bool ended = false;
  while (ms >= 0 && !ended && !std::filesystem::exists(out + "/step_latest")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ended = waitpid(child, &status, WNOHANG) == child;
  }
  if (ms >= 0 && !ended) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    kill(child, SIGKILL);
  }
  if (!ended) waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// How many of the children went on in the middle of a run.
int ResumesIn(const std::string& path) {
  std::ifstream starts(path);
  int resumes = 0;
  for (int64_t step = 0; starts >> step;) resumes += step > 0 && step < kChildSteps;
  return resumes;
}

TEST_F(TrainerTest, KilledAtAnyMomentItEndsTheSame) {
  const std::string whole = dir_.path() + "/whole", killed = dir_.path() + "/killed";
  ASSERT_TRUE(RunChild(whole, -1));
  const int kills = std::stoi(FromEnvironment("DSPARK_TEST_KILLS", "5"));
  // The first one dies soon after its first checkpoint, with steps to go; the others whenever it may be.
  for (int i = 0; i < kills; ++i)
    RunChild(killed, i == 0 ? 0 : int(UniformFloat(7, uint64_t(i), Purpose::kTest) * 1500));
  ASSERT_TRUE(RunChild(killed, -1));
  EXPECT_GT(ResumesIn(killed + ".starts"), 0);
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

TEST_F(TrainerTest, CheckpointsOfOneTokenAStepAreDrafters) {
  for (const std::string kind : {"eagle3", "mtp"}) {
    for (const int draft_vocab : {0, 80}) {
      SCOPED_TRACE(fmt::format("{}, {} ids", kind, draft_vocab));
      SetKind(kind);
      config_.draft_vocab = draft_vocab;
      const std::string out = fmt::format("{}/{}{}", dir_.path(), kind, draft_vocab);
      const auto trainer = Make();
      Run(*trainer, 1);
      ASSERT_TRUE(trainer->Save(out).ok());
      const auto files = OpenDrafter(out + "/step_latest");
      ASSERT_TRUE(files.ok()) << files.error().text;
      EXPECT_TRUE(CheckDrafterFits(*files, target_.config).ok());
      EXPECT_EQ(files->config.kind, kind == "mtp" ? DrafterKind::kMtp : DrafterKind::kEagle3);
      EXPECT_EQ(files->config.taps, trainer->drafter().taps);
      EXPECT_EQ(files->config.max_drafts(), 3);
      EXPECT_EQ(files->config.draft_to_target.size(), size_t(draft_vocab));
      EXPECT_EQ(files->config.own_embedding, kind == "eagle3");  // V3's form takes the target's
      EXPECT_EQ(files->config.own_head, kind == "eagle3" || draft_vocab > 0);
      EXPECT_EQ(files->config.target_layers, 6);
      EXPECT_TRUE(files->config.backbone.qk_norm);
    }
  }
}

// Exactly the tensors, shapes and keys that the reference writes.
TEST_F(TrainerTest, GoldenEagle3Checkpoint) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
  const std::string golden = GoldenDir() + "/drafters/eagle3";
  ModelFiles target = OpenModel(GoldenDir() + "/drafters/target_qwen3").value();
  CountingSource source(target, 40);
  SetKind("eagle3");
  config_.precision = "f32";
  config_.ttt_steps = 7;
  config_.target = "target_qwen3";
  config_.taps = {1, 2, 3, 5, 6};
  source.SetTaps(config_.taps);
  const auto trainer = Trainer::Make(config_, target, source).value();
  ASSERT_TRUE(trainer->Save(dir_.path() + "/out").ok());

  const auto shapes = [](const std::string& path) {
    const MappedFile file = MappedFile::Open(path).value();
    const Safetensors stored = ParseSafetensors(file.bytes(), path).value();
    std::map<std::string, std::vector<int64_t>> found;
    for (const SafeTensor& tensor : stored.tensors) found[tensor.name] = tensor.shape;
    return found;
  };
  EXPECT_EQ(shapes(dir_.path() + "/out/step_0/model.safetensors"), shapes(golden + "/model.safetensors"));
  const auto ours = ReadJsonObject(dir_.path() + "/out/step_0/config.json").value();
  const auto theirs = ReadJsonObject(golden + "/config.json").value();
  for (const auto& [key, value] : ours.items()) {
    if (key == "transformers_version") continue;
    if (value.is_number_float()) {
      EXPECT_NEAR(value.get<double>(), theirs[key].get<double>(), 1e-9) << key;
    } else {
      EXPECT_EQ(value, theirs.value(key, nlohmann::json())) << key;
    }
  }
  for (const char* key : {"architectures", "draft_num_hidden_layers", "num_target_layers", "step_loss_decay",
                          "target_layer_ids", "target_model_name_or_path", "ttt_length"}) {
    EXPECT_TRUE(ours.contains(key)) << key;
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
  const torch::Tensor k = TensorFrom(*files.weights->Find("blk.0.attn_k.weight"));
  const torch::Tensor stored_k = TensorFrom(*target_.weights->Find("blk.4.attn_k.weight"));
  EXPECT_TRUE(k[1].equal(stored_k[2]));
  EXPECT_TRUE(k[8].equal(stored_k[1]));
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

// From before there were kinds.
TEST_F(TrainerTest, GoesOnFromACheckpointThatNamesNoKind) {
  const std::string out = dir_.path() + "/old";
  ASSERT_TRUE(Make()->Save(out).ok());
  const std::string path = out + "/step_latest/training.json";
  nlohmann::json json = ReadJsonObject(path).value();
  ASSERT_EQ(json["config"].erase("kind"), 1u);
  std::ofstream(path) << json;
  EXPECT_TRUE(Make()->Resume(out).value());
  SetKind("mtp");
  const auto resumed = Make()->Resume(out);
  ASSERT_FALSE(resumed.ok());
  EXPECT_NE(resumed.error().text.find("another kind"), std::string::npos);
}

TEST(TrainConfig, ReadsBackWhatItWrites) {
  for (const char* kind : {"dspark", "dflash", "eagle3", "mtp"}) {
    TrainConfig config = DefaultsOf(kind);
    config.target = "model.gguf";
    config.data = {"a.jsonl", "b.jsonl"};
    config.learning_rate = 1e-3;
    const auto json = TrainConfigJson(config);
    const auto read = ParseTrainConfig(json, "x.json");
    ASSERT_TRUE(read.ok()) << read.error().text;
    EXPECT_EQ(TrainConfigJson(*read), json);
  }
}

TEST(TrainConfig, KindsHaveDefaultsOfTheirOwn) {
  const auto read = [](const char* text) {
    return ParseTrainConfig(nlohmann::json::parse(text), "x.json").value();
  };
  const TrainConfig dflash = read(R"({"kind": "dflash"})");
  EXPECT_EQ(dflash.markov, "none");
  EXPECT_FALSE(dflash.confidence);
  EXPECT_EQ(dflash.ce_share, 1);
  EXPECT_EQ(dflash.l1_share, 0);
  EXPECT_EQ(dflash.layers, 2);
  EXPECT_EQ(read(R"({"kind": "eagle3"})").ttt_steps, 7);
  EXPECT_EQ(read(R"({"kind": "mtp"})").ttt_steps, 1);
  EXPECT_EQ(read(R"({"kind": "mtp", "ttt_steps": 2})").ttt_steps, 2);
}

TEST(TrainConfig, NamesTheKeyThatIsWrong) {
  const std::pair<const char*, const char*> kWrong[] = {
      {R"({"layres": 2})", "no key layres"},
      {R"({"layers": 2.5})", "layers is 2.5"},
      {R"({"layers": 0})", "layers is 0"},
      {R"({"markov": "gru"})", "markov is \"gru\""},
      {R"({"taps": [1, "x"]})", "taps"},
      {R"({"confidence": 1})", "confidence is 1"},
      {R"({"batch": 9, "group": 8})", "batch 9"},
      {R"({"learning_rate": "x"})", "learning_rate"},
      {R"({"taps": [4294967297]})", "taps is [4294967297], expected a list of whole numbers"},
      {R"({"kind": "medusa"})", "kind is \"medusa\""},
      {R"({"ttt_steps": 3})", "ttt_steps does nothing for kind dspark"},
      {R"({"kind": "dflash", "markov": "rnn"})", "markov does nothing for kind dflash"},
      {R"({"kind": "eagle3", "layers": 2})", "layers does nothing for kind eagle3"},
      {R"({"kind": "mtp", "taps": [1]})", "taps does nothing for kind mtp"},
      {R"({"kind": "eagle3", "slot_weights": "dpace"})", "slot_weights does nothing for kind eagle3"},
      {R"({"slot_weights": "best"})", "one of fixed, dpace"},
      {R"({"slot_weights": "dpace", "ce_share": 0, "l1_share": 0})", "slot_weights dpace does nothing"},
      {R"({"kind": "dflash", "loss": "lk"})", "loss lk does nothing with l1_share 0"}};
  for (const auto& [text, what] : kWrong) {
    const auto read = ParseTrainConfig(nlohmann::json::parse(text), "x.json");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_NE(read.error().text.find(what), std::string::npos) << read.error().text;
    EXPECT_TRUE(read.error().text.starts_with("x.json")) << read.error().text;
  }
}

}  // namespace
}  // namespace dspark::test

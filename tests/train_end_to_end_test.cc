// From conversations to a drafter that drafts: every command of the way, on a tiny target.
#include <nlohmann/json.hpp>
#include <random>

#include "cli.h"
#include "core/clock.h"
#include "test_data.h"
#include "xml_check.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// A random target that says capitals and digits only, each mostly decided by the one before: text that a
// small drafter learns in fifty steps, and that is tokenised again as it was made.
std::string WriteLearnableTarget(const std::string& path) {
  constexpr float kBranches = 0.15f, kHead = 2;
  GgufBuilder b = BuildTinyLlama(
      5, {.layers = 6, .matrices = TensorType::kF32, .embedding = TensorType::kF32, .tied = false});
  for (GgufBuilder::Tensor& tensor : b.tensors) {
    const bool head = tensor.name == "output.weight";
    const bool branch =
        tensor.name.ends_with("attn_output.weight") || tensor.name.ends_with("ffn_down.weight");
    if (!branch && !head) continue;
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t byte = i / tensor.ne[0] - 3;  // tokens 3 to 258 are the bytes
      const bool said = byte < 128 && (std::isdigit(int(byte)) || std::isupper(int(byte)));
      values[i] *= branch ? kBranches : said ? kHead : 0;
    }
    std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  }
  return WriteFile(path, b.Build());
}

class TrainEndToEnd : public Cli {
 protected:
  TrainEndToEnd() : target_(WriteLearnableTarget(Path("target/tiny.gguf"))) {}

  void SetUp() override {
    const auto trainer = std::filesystem::path(DSPARK_BINARY).parent_path() / "dspark-train";
    DSPARK_SKIP_WITHOUT(trainer.string(), "install libtorch-dev and build again");
  }
  Outcome RunWell(const std::vector<std::string>& arguments) {
    Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome;
  }
  // data/train.jsonl, data/held_out.jsonl, and answers.jsonl: the former with the target's own answers.
  void Prepare() {
    std::ofstream rows(Path("rows.jsonl"));
    std::mt19937 random(7);
    for (int i = 0; i < 120; ++i) {
      std::string question;
      for (int k = 0; k < 12; ++k) question += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[random() % 32];
      rows << R"({"conversations":[{"from":"human","value":")" << question
           << R"("},{"from":"gpt","value":"Another model's."}]})"
           << "\n";
    }
    rows.close();
    RunWell({"prepare", "split", Path("rows.jsonl"), "--out", Path("data"), "--held-out", "0.1"});
    RunWell({"prepare", "regenerate", Path("data/train.jsonl"), "--out", Path("answers.jsonl"), "-m", target_,
             "-n", "48", "--temp", "0.7", "--seed", "1"});
  }
  std::vector<std::string> TrainArguments(const std::string& data, const std::string& out, int steps) const {
    return {"train",
            "target=" + target_,
            "data=[\"" + Path(data) + "\"]",
            "out=" + Path(out),
            fmt::format("steps={}", steps),
            "taps=[0,2,4]",
            "layers=1",
            "block_size=4",
            "mask_token=0",
            "markov_rank=16",
            "anchors=48",
            "batch=8",
            "group=4",
            "learning_rate=0.02",
            "ce_share=1",
            "threads=2"};
  }
  // The report of a checkpoint on prompts that were held out.
  json Evaluate(const std::string& drafter) {
    RunWell({"eval", "-m", target_, "-md", "drafter=" + Path(drafter), "--suite", Path("data/held_out.jsonl"),
             "-n", "48", "-t", "2", "--concurrency", "4", "--json", Path("report.json"), "--html",
             Path("report.html")});
    EXPECT_EQ(XmlError(ReadFile(Path("report.html"))), "");
    return json::parse(ReadFile(Path("report.json")));
  }
  static double Tau(const json& report) { return report["drafters"][0]["suites"][0]["tau"]; }
  json Answer(const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"run", "-m", target_, "--json", "-n", "64", "WHATISIT"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(RunWell(arguments).out);
  }
  // The lines of a run's log, without what the clock says.
  std::vector<json> Log(const std::string& out) const {
    std::vector<json> lines;
    std::ifstream in(Path(out + "/train.jsonl"));
    for (std::string line; std::getline(in, line);) {
      lines.push_back(json::parse(line));
      for (const char* key : {"seconds", "source_ms", "train_ms", "optimizer_ms", "exchange_ms"})
        lines.back().erase(key);
    }
    return lines;
  }

  std::string target_;
};

// Trained, a round commits a token more than untrained, at least; measured: 1.7 more.
constexpr double kMargin = 1;

TEST_F(TrainEndToEnd, FromConversationsToADrafterThatDrafts) {
  Prepare();
  RunWell(TrainArguments("answers.jsonl", "untrained", 1));
  RunWell(TrainArguments("answers.jsonl", "trained", 50));
  EXPECT_EQ(Log("trained").size(), 50u);
  EXPECT_THAT(ReadFile(Path("trained/train.html")), HasSubstr("<svg"));
  const json before = Evaluate("untrained/step_latest"), after = Evaluate("trained/step_latest");
  EXPECT_EQ(after["lossless"], true);
  EXPECT_EQ(after["drafters"][0]["name"], "drafter");
  EXPECT_GT(after["drafters"][0]["suites"][0]["answers"], 5);
  EXPECT_GT(Tau(after), Tau(before) + kMargin);

  const json plain = Answer({"--no-spec"});
  const json drafted = Answer({"-md", Path("trained/step_latest"), "--no-lookup", "--policy", "fixed:4"});
  EXPECT_EQ(drafted["tokens"], plain["tokens"]);
  EXPECT_EQ(drafted["text"], plain["text"]);
  EXPECT_GT(drafted["timings"]["accepted"], 20);

  RunWell(
      {"prepare", "cache", "-m", target_, Path("answers.jsonl"), "--out", Path("cache"), "--taps", "0,2,4"});
  RunWell(TrainArguments("cache", "from_cache", 50));
  EXPECT_GT(Tau(Evaluate("from_cache/step_latest")), Tau(before) + kMargin);

  RunWell({"prepare", "cache", "-m", target_, Path("answers.jsonl"), "--out", Path("lists"), "--taps",
           "0,2,4", "--compact", "--teacher-top-k", "8"});
  const Outcome trained = RunWell(TrainArguments("lists", "from_lists", 50));
  EXPECT_THAT(trained.err, HasSubstr("teacher: the target's 8 likeliest tokens\n"));
  EXPECT_GT(Tau(Evaluate("from_lists/step_latest")), Tau(before) + kMargin);
}

TEST_F(TrainEndToEnd, BadCommandLines) {
  ExpectOneLine(Run({"train", "target=x", "data=[\"y\"]", "out=z", "stepps=5"}), 2, "there is no key stepps");
  ExpectOneLine(Run({"train", "target=x", "data=[\"y\"]", "out=z", "steps=many"}), 2, "steps is \"many\"");
  ExpectOneLine(Run({"train", "data=[\"y\"]", "out=z"}), 2, "give target=MODEL");
  ExpectOneLine(Run({"train", Path("none.json")}), 1, "none.json");
  ExpectOneLine(Run({"train", "target=" + Path("none.gguf"), "data=[\"y\"]", "out=z"}), 1, "none.gguf");
  ExpectOneLine(Run({"train", "target=smollm2-135m", "data=[\"y\"]", "out=z"}), 1, "dspark pull");
}

// Killed at random moments and started again, until it comes to its end: the same drafter and the same log as
// without. DSPARK_KILLS sets how many moments.
TEST_F(TrainEndToEnd, KilledAtAnyMomentGoesOnBitForBit) {
  const char* wanted = std::getenv("DSPARK_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 3;
  const auto arguments = [&](const std::string& out) {
    std::vector<std::string> all = TrainArguments("answers.jsonl", out, 16);
    all.insert(all.end(), {"checkpoint_every=2", "anchors=8"});
    return all;
  };
  Prepare();
  const double start = NowMs();
  RunWell(arguments("whole"));
  const double whole_ms = NowMs() - start;
  const std::string model = ReadFile(Path("whole/step_latest/model.safetensors"));
  const std::vector<json> log = Log("whole");
  ASSERT_EQ(log.size(), 16u);

  std::mt19937 random{uint32_t(getpid())};
  std::uniform_real_distribution<double> moment(0, whole_ms);
  int done = 0;
  for (int run = 0; done < kills; ++run) {
    const std::string out = fmt::format("pieces{}", run);
    for (int i = 0; i < 4 && done < kills; ++i) {
      const pid_t child = Start(arguments(out), "/dev/null", Path("out"));
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(moment(random)));
      kill(child, SIGKILL);
      done += Finish(child).exit_code == -1;
    }
    RunWell(arguments(out));
    ASSERT_TRUE(ReadFile(Path(out + "/step_latest/model.safetensors")) == model) << "after kill " << done;
    ASSERT_EQ(Log(out), log) << "after kill " << done;
  }
}

}  // namespace
}  // namespace dspark::test

// Several processes train what one trains.
#include <gtest/gtest.h>

#include <csignal>
#include <sstream>

#include "counting_source.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"
#include "train/process_group.h"
#include "train/trainer.h"
#include "train_processes.h"

namespace dspark::test {
namespace {

constexpr char kOut[] = "DSPARK_TEST_SHARED_OUT";      // where the children save
constexpr char kUntil[] = "DSPARK_TEST_SHARED_UNTIL";  // the step after which they do
constexpr char kDies[] = "DSPARK_TEST_SHARED_DIES";    // the rank that kills itself behind that step

constexpr char kOther[] = "DSPARK_TEST_SHARED_OTHER";  // what rank 1 has others of

// Has other last tokens, or says that it has another teacher.
class OtherSource : public CountingSource {
 public:
  OtherSource(const ModelFiles& target, int64_t size, const std::string& what)
      : CountingSource(target, size), tokens_(what == "tokens"), shape_(CountingSource::shape()) {
    if (what == "teacher") shape_.teacher_top = 8;
  }
  const SampleShape& shape() const override { return shape_; }
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override {
    auto samples = CountingSource::ReadTokens(indices).value();
    for (TrainSample& sample : samples) sample.ids.back() += tokens_;
    return samples;
  }

 private:
  bool tokens_;
  SampleShape shape_;
};

class SharedTraining : public testing::Test {
 protected:
  SharedTraining()
      : target_(OpenModel(WriteTinyLlamaGguf(dir_.path(), 3, TinyLlama{.layers = 6})).value()),
        source_(target_, 40) {
    config_ = CountingConfig();
    config_.precision = "f32";
    config_.draft_vocab = 80;
    config_.steps = 8;
    config_.threads = 1;
  }
  std::unique_ptr<Trainer> Make(ProcessGroup* group = nullptr) {
    return Trainer::Make(config_, target_, source_, group).value();
  }
  // What a step logs and other processes can change: the curve of a run, one line a step.
  static std::string Line(const StepReport& r) {
    return fmt::format("{} {} {} {} {} {} {}\n", r.step, r.loss, r.metrics.Tau(),
                       r.metrics.ConfidenceCumprodBias(), r.grad_norm, r.anchors, r.positions);
  }
  static std::string Curve(Trainer& trainer, int64_t until) {
    std::string curve;
    while (trainer.step() < until) curve += Line(trainer.Step().value());
    return curve;
  }
  static void ExpectClose(const std::string& a, const std::string& b) {
    std::istringstream left(a), right(b);
    double x = 0, y = 0;
    int numbers = 0;
    for (; left >> x && right >> y; ++numbers) EXPECT_NEAR(x, y, 1e-4) << a << b;
    EXPECT_GE(numbers, 7) << a << b;
    EXPECT_EQ(std::ranges::count(a, '\n'), std::ranges::count(b, '\n')) << a << b;
  }
  std::vector<std::string> Run(int world, int64_t until, const char* dies = "-1", const char* other = "") {
    Processes processes(world, "SharedTraining.Child",
                        {{kOut, out()}, {kUntil, std::to_string(until)}, {kDies, dies}, {kOther, other}});
    processes.Wait();
    return processes.results();
  }
  std::string out() const { return dir_.path() + "/out"; }

  TempDir dir_;
  ModelFiles target_;
  CountingSource source_;
  TrainConfig config_;
};

// What the other tests start: goes on from the checkpoint, and saves. Nothing when run by itself.
TEST_F(SharedTraining, Child) {
  const std::string out = FromEnvironment(kOut, "");
  if (out.empty()) return;
  const ProcessPlace place = PlaceFromEnvironment();
  ProcessGroup group = ProcessGroup::Join(place).value();
  OtherSource other(target_, 40, FromEnvironment(kOther, ""));
  auto made = Trainer::Make(config_, target_, place.rank == 1 ? other : source_, &group);
  if (!made.ok()) {
    group.Leave(made.error().text);
    return WriteResult(made.error().text);
  }
  const auto trainer = std::move(made).value();
  if (const auto resumed = trainer->Resume(out); !resumed.ok()) return WriteResult(resumed.error().text);
  const std::string curve = Curve(*trainer, std::stoi(FromEnvironment(kUntil, "0")));
  ASSERT_TRUE(trainer->Save(out).ok());
  WriteResult(curve);
  if (FromEnvironment(kDies, "-1") == "-1") return;
  if (FromEnvironment(kDies, "") == std::to_string(place.rank)) raise(SIGKILL);
  const auto step = trainer->Step();
  WriteResult(step.ok() ? "another step" : step.error().text);
}

TEST_F(SharedTraining, HasTheCurveOfOneProcess) {
  if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  const std::string alone = Curve(*Make(), 8);
  const auto two = Run(2, 8);
  EXPECT_EQ(two[0], two[1]);
  ExpectClose(two[0], alone);
  std::filesystem::remove_all(out());
  const auto three = Run(3, 8);  // groups of 4: one process has two samples, the others one
  EXPECT_EQ(three[0], three[2]);
  ExpectClose(three[0], alone);
}

TEST_F(SharedTraining, GoesOnWithAnotherNumberOfProcesses) {
  if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  const auto whole = Make();
  const std::string before = Curve(*whole, 3), middle = Curve(*whole, 6), after = Curve(*whole, 8);
  ExpectClose(Run(2, 3)[0], before);
  const auto alone = Make();
  ASSERT_TRUE(alone->Resume(out()).value());
  ExpectClose(Curve(*alone, 6), middle);
  ASSERT_TRUE(alone->Save(out()).ok());
  ExpectClose(Run(2, 8)[1], after);
}

TEST_F(SharedTraining, EndsWhenOneIsKilled) {
  if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  const auto said = Run(2, 2, "1");
  EXPECT_TRUE(said[0].starts_with("rank 1 is gone")) << said[0];
  EXPECT_TRUE(Make()->Resume(out()).value());
}

TEST_F(SharedTraining, RefusesOtherDataAndOtherTeachers) {
  if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  for (const auto& [other, why] :
       {std::pair("tokens", "the data are not those"), std::pair("teacher", "teacher_top_k of")}) {
    const auto said = Run(2, 1, "-1", other);
    EXPECT_TRUE(said[1].starts_with(why)) << said[1];
    EXPECT_NE(said[0].find(std::string("rank 1 ended: ") + why), std::string::npos) << said[0];
  }
}

TEST_F(SharedTraining, RefusesMoreProcessesThanSamplesOfAGroup) {
  if (!ProcessGroup::Available()) GTEST_SKIP() << "*** SKIPPED: built without gloo; install libgloo-dev";
  for (const std::string& said : Run(5, 1))
    EXPECT_NE(said.find("give a larger group"), std::string::npos) << said;
}

}  // namespace
}  // namespace dspark::test

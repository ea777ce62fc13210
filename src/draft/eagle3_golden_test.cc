// DeepSpec's Eagle3 against the reference implementation, fed with the golden target's taps.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "golden_tensors.h"
#include "kernels/ops.h"
#include "sequential_fixture.h"
#include "test_data.h"

namespace dspark::test {
namespace {

constexpr float kTolerance = 1e-4f;
constexpr SequenceId kId = 5;
constexpr size_t kDrafts = 7, kVocab = 512;

class GoldenEagle3 : public testing::Test {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_GOLDEN("drafters");
    const std::string dir = GoldenDir() + "/drafters";
    golden_ = std::make_unique<GoldenTensors>(dir + "/infer_eagle3.safetensors");
    target_files_ = Opened(OpenModel(dir + "/target_qwen3"));
    files_ = Opened(OpenDrafter(dir + "/eagle3"));
    target_ = Opened(
        LoadTarget(target_files_, pool_,
                   {.max_rows = 256, .max_context = kContext, .max_taps = 5, .kv_type = KvType::kF32}));
    blocks_ = std::make_unique<BlockPool>(target_->kv_layout(), kContext / 32);
    auto drafter = Opened(Eagle3::Load(files_, *target_, pool_,
                                       {.max_context = kContext, .kv_type = KvType::kF32, .candidates = 0}));
    drafter_.reset(static_cast<Eagle3*>(drafter.release()));
  }

  template <class T>
  static T Opened(Result<T> result) {
    if (!result) CheckFailed(__FILE__, __LINE__, result.error().text);
    return std::move(result).value();
  }

  // The text whose rows are observed from now on; rows' taps do not depend on what follows them.
  void SetText(std::vector<int32_t> text) {
    text_ = std::move(text);
    KvTable kv(*blocks_);
    ASSERT_TRUE(kv.Reserve(int(text_.size())));
    const Segment segment{.tokens = text_, .position = 0, .kv = &kv, .logits_from = int(text_.size())};
    const ForwardOutput output = target_->Forward({&segment, 1}, drafter_->tap_layers());
    width_ = output.taps_stride;
    taps_.assign(output.taps, output.taps + width_ * text_.size());
    drafter_->Begin(kId, {});
    observed_ = 0;
  }
  void ObserveUpTo(int rows) {
    ObserveRows(*drafter_, kId, observed_, rows, text_, taps_, width_);
    observed_ = rows;
  }
  // Prompt and the first token of the reply.
  void SetPrompt() {
    std::vector<int32_t> text = golden_->Ints("prompt_ids");
    text.push_back(golden_->Ints("first_token")[0]);
    SetText(text);
  }
  void ExpectNear(std::span<const float> got, const std::string& name) const {
    const float difference = MaxDifference(got, golden_->Floats(name));
    fmt::print("{}: largest difference {:.2e}\n", name, difference);
    EXPECT_LT(difference, kTolerance) << name;
  }
  RecordingSampler Forced(const std::vector<int32_t>& chain) {
    RecordingSampler sampler(chain, drafter_.get());
    EXPECT_EQ(ProposeAlone(*drafter_, kId, &sampler).tokens, chain);
    return sampler;
  }

  static constexpr int kContext = 256;
  ThreadPool pool_{2};
  std::unique_ptr<GoldenTensors> golden_;
  ModelFiles target_files_;
  DrafterFiles files_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<BlockPool> blocks_;
  std::unique_ptr<Eagle3> drafter_;
  std::vector<int32_t> text_;
  std::vector<float> taps_;  // [rows, width_]
  size_t width_ = 0;
  int observed_ = 0;
};

TEST_F(GoldenEagle3, ReadsThePrompt) {
  SetPrompt();
  ObserveUpTo(40);
  ExpectNear(Eagle3Peer::Fused(*drafter_), "fused_context");
  ExpectNear(SequentialDrafterPeer::Cached(*drafter_, kId, false, 40), "prefill_k");
  ExpectNear(SequentialDrafterPeer::Cached(*drafter_, kId, true, 40), "prefill_v");

  SetPrompt();
  std::vector<float> states;
  for (int row = 1; row <= 40; ++row) {
    ObserveUpTo(row);
    const std::vector<float> state = SequentialDrafterPeer::State(*drafter_, kId);
    states.insert(states.end(), state.begin(), state.end());
  }
  ExpectNear(states, "prefill_states");
}

TEST_F(GoldenEagle3, DraftsTheFirstBlock) {
  SetPrompt();
  ObserveUpTo(40);
  EXPECT_EQ(drafter_->max_tokens(), int(kDrafts));
  EXPECT_EQ(ProposeAlone(*drafter_, kId, nullptr).tokens, golden_->Ints("greedy_chain"));
  for (const std::string name : {"greedy", "teacher"}) {
    const RecordingSampler sampler = Forced(golden_->Ints(name + "_chain"));
    ExpectNear(sampler.states, "states_" + name);
    ExpectNear(sampler.logits, "logits_" + name);
  }
}

// Every round drafts what the reference drafted, with K/V that earlier drafts have passed through.
TEST_F(GoldenEagle3, DraftsEveryRoundOfTheRecordedReplies) {
  for (const std::string run : {"greedy.", "stop."}) {
    SetText(golden_->Ints(run + "output_ids"));
    const auto start = golden_->Ints(run + "start"), drafts = golden_->Ints(run + "draft_tokens");
    const auto count = golden_->Ints(run + "num_draft");
    std::vector<float> states;
    for (size_t round = 0; round < start.size(); ++round) {
      ObserveUpTo(start[round]);
      std::vector<int32_t> wanted(&drafts[round * kDrafts], &drafts[round * kDrafts] + count[round]);
      EXPECT_EQ(ProposeAlone(*drafter_, kId, nullptr, count[round]).tokens, wanted) << run << round;
      if (run != "greedy." || round >= 10) continue;
      const RecordingSampler sampler = Forced(wanted);
      states.insert(states.end(), sampler.states.begin(), sampler.states.end());
    }
    if (run == "greedy.") ExpectNear(states, "greedy.block_hidden");
  }
}

TEST_F(GoldenEagle3, ReproducesTheDistributionsOfSampledRounds) {
  const std::pair<std::string, float> rounds[] = {
      {"t1.0.r0", 1.0f}, {"t1.0.r1", 1.0f}, {"t1.0.r2", 1.0f}, {"t0.6.r0", 0.6f}};
  for (const auto& [round, temperature] : rounds) {
    SetText(golden_->Ints(round + ".prefix_ids"));
    ObserveUpTo(int(text_.size()) - 1);
    RecordingSampler sampler = Forced(golden_->Ints(round + ".draft_tokens"));
    ASSERT_EQ(sampler.logits.size(), kDrafts * kVocab);
    for (size_t k = 0; k < kDrafts; ++k) {
      float* row = &sampler.logits[k * kVocab];
      Softmax(pool_.isa(), {row, kVocab}, 1 / temperature, row);
    }
    ExpectNear(sampler.logits, round + ".q");
  }
}

}  // namespace
}  // namespace dspark::test

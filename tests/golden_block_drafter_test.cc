// DSpark and DFlash against the reference implementation: first rounds value by value, whole generations
// round by round, q of sampled rounds. Goldens: README.md of golden/drafters.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "block_drafter_peer.h"
#include "golden_tensors.h"
#include "test_data.h"

namespace dspark::test {
namespace {

constexpr float kTolerance = 1e-4f;
constexpr SequenceId kId = 7;

float Sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// The golden target and one of its drafters, in fp32 as the goldens are, on one sequence.
struct Rig {
  Rig(const std::string& name, Isa isa)
      : golden(GoldenDir() + "/drafters/infer_" + name + ".safetensors"), pool(2, isa) {
    auto model = OpenModel(GoldenDir() + "/drafters/target_qwen3");
    auto files = OpenDrafter(GoldenDir() + "/drafters/" + name);
    if (!model) CheckFailed(__FILE__, __LINE__, model.error().text);
    if (!files) CheckFailed(__FILE__, __LINE__, files.error().text);
    const int taps = int(files->config.taps.size());
    auto loaded = LoadTarget(
        *model, pool, {.max_rows = 128, .max_context = 256, .max_taps = taps, .kv_type = KvType::kF32});
    if (!loaded) CheckFailed(__FILE__, __LINE__, loaded.error().text);
    target = std::move(loaded).value();
    auto drafts =
        LoadDrafter(*files, *target, pool, {.max_context = 256, .kv_type = KvType::kF32, .candidates = 0});
    if (!drafts) CheckFailed(__FILE__, __LINE__, drafts.error().text);
    drafter = std::move(drafts).value();
    blocks = std::make_unique<BlockPool>(target->kv_layout(), 16);
    kv.emplace(*blocks);
    drafter->Begin(kId, {});
  }
  ~Rig() { drafter->End(kId); }
  int vocab() const { return target->config().vocab; }

  // Runs tokens at `position` on; logits' argmax of every row.
  std::vector<int32_t> Verify(std::span<const int32_t> tokens, int position) {
    DSPARK_CHECK(kv->Reserve(position + int(tokens.size())));
    const Segment segment{.tokens = tokens, .position = position, .kv = &*kv};
    output = target->Forward({&segment, 1}, drafter->tap_layers());
    std::vector<int32_t> best;
    for (int r = 0; r < output.logit_rows; ++r) {
      const float* row = output.logits + size_t(r) * output.logits_stride;
      best.push_back(int32_t(std::max_element(row, row + vocab()) - row));
    }
    return best;
  }
  // Shows the drafter the first rows of the last Verify; `next` are the tokens behind each.
  void Observe(std::span<const int32_t> next, int position) {
    const ObservedRows rows{.sequence = kId,
                            .position = position,
                            .next = next,
                            .taps = output.taps,
                            .taps_stride = output.taps_stride};
    drafter->Observe({&rows, 1});
  }
  // The text up to the newest token, which is the last of `tokens`.
  void Prefill(std::span<const int32_t> tokens) {
    Verify(tokens.first(tokens.size() - 1), 0);
    Observe(tokens.subspan(1), 0);
  }
  Proposal Propose(DraftSampler* sampler = nullptr) {
    Proposal proposal;
    ProposeRequest request{.sequence = kId, .max_tokens = 16, .proposal = &proposal, .sampler = sampler};
    drafter->Propose({&request, 1});
    return proposal;
  }

  GoldenTensors golden;
  ThreadPool pool;
  std::unique_ptr<Target> target;
  std::unique_ptr<Drafter> drafter;
  std::unique_ptr<BlockPool> blocks;
  std::optional<KvTable> kv;
  ForwardOutput output;
};

// Row `row` of a golden tensor against ours.
void ExpectRow(std::span<const float> golden, size_t row, std::span<const float> ours, const char* what) {
  ASSERT_LE((row + 1) * ours.size(), golden.size()) << what;
  float most = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    most = std::max(most, std::abs(golden[row * ours.size() + i] - ours[i]));
  EXPECT_LT(most, kTolerance) << what << ", row " << row;
}

void ExpectConfidence(std::span<const float> logits, std::span<const float> ours) {
  ASSERT_EQ(ours.size(), logits.size());
  for (size_t k = 0; k < ours.size(); ++k) EXPECT_NEAR(ours[k], Sigmoid(logits[k]), 1e-5) << "slot " << k;
}

class GoldenBlockDrafter : public testing::TestWithParam<std::tuple<std::string, Isa>> {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_GOLDEN("drafters/" + name_);
    if (!IsaSupported(isa_)) GTEST_SKIP() << "*** SKIPPED: this processor has no " << IsaName(isa_);
    rig_ = std::make_unique<Rig>(name_, isa_);
    prompt_ = golden().Ints("prompt_ids");
    prompt_.push_back(golden().Ints("first_token")[0]);
  }
  const GoldenTensors& golden() const { return rig_->golden; }
  bool HasHeads() const { return name_ != "dflash"; }

  const std::string name_ = std::get<0>(GetParam());
  const Isa isa_ = std::get<1>(GetParam());
  std::unique_ptr<Rig> rig_;
  std::vector<int32_t> prompt_;  // and the first token behind it
};

// Those with Markov and confidence heads.
class GoldenDSpark : public GoldenBlockDrafter {};

std::string CaseName(const testing::TestParamInfo<std::tuple<std::string, Isa>>& info) {
  return std::get<0>(info.param) + "_" + std::string(IsaName(std::get<1>(info.param)));
}
const auto kIsas = testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni);
INSTANTIATE_TEST_SUITE_P(
    Tiny, GoldenBlockDrafter,
    testing::Combine(testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash"), kIsas),
    CaseName);
INSTANTIATE_TEST_SUITE_P(Tiny, GoldenDSpark,
                         testing::Combine(testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn"),
                                          kIsas),
                         CaseName);

TEST_P(GoldenBlockDrafter, FirstRound) {
  rig_->Prefill(prompt_);
  BlockDrafterPeer peer(*rig_->drafter);
  EXPECT_EQ(peer.pending_rows(), 40);
  const Proposal proposal = rig_->Propose();
  EXPECT_EQ(proposal.tokens, golden().Ints("greedy_chain"));
  EXPECT_FALSE(proposal.sampled());
  if (HasHeads()) ExpectConfidence(golden().Floats("confidence_greedy"), proposal.confidence);

  const auto context = golden().Floats("fused_context"), residual = golden().Floats("block_layer_out");
  const auto hidden = golden().Floats("block_hidden"), logits = golden().Floats("base_logits");
  for (int row = 0; row < 40; ++row) ExpectRow(context, size_t(row), peer.Context(row), "context");
  for (int slot = 0; slot < 7; ++slot) {
    ExpectRow(residual, size_t(7 + slot), peer.Residual(slot), "last layer");
    ExpectRow(hidden, size_t(slot), peer.Hidden(slot), "hidden");
    ExpectRow(logits, size_t(slot), peer.Logits(slot), "base logits");
  }
  for (bool v : {false, true}) {
    const auto cache = golden().Floats(v ? "draft_cache_v" : "draft_cache_k");  // [2, 2, 40, 16]
    float most = 0;
    for (int i = 0; i < int(cache.size()); ++i) {
      const float ours = peer.Kv(kId, v, i / (2 * 40 * 16), i / (40 * 16) % 2, i / 16 % 40, i % 16);
      most = std::max(most, std::abs(cache[size_t(i)] - ours));
    }
    EXPECT_LT(most, kTolerance) << (v ? "V" : "K");
  }
}

TEST_P(GoldenDSpark, CorrectedLogitsAlongAChain) {
  rig_->Prefill(prompt_);
  BlockDrafterPeer peer(*rig_->drafter);
  for (const std::string chain : {"greedy", "teacher"}) {
    ChainSampler sampler(golden().Ints(chain + "_chain"), rig_->vocab());
    if (name_ == "dspark_rnn") sampler.peer = &peer;
    const Proposal proposal = rig_->Propose(&sampler);
    ASSERT_EQ(sampler.offered.size(), 7u);
    ExpectConfidence(golden().Floats("confidence_" + chain), proposal.confidence);
    for (size_t k = 0; k < 7; ++k) {
      ExpectRow(golden().Floats("corrected_logits_" + chain), k, sampler.offered[k], "corrected logits");
      if (sampler.peer) ExpectRow(golden().Floats("rnn_states_" + chain), k, sampler.states[k], "state");
    }
  }
}

// The whole recorded generation `run`, round by round; drafts whose confidence is below `threshold` are cut.
void ReplayGeneration(Rig& rig, std::vector<int32_t> text, const std::string& run, float threshold) {
  BlockDrafterPeer peer(*rig.drafter);
  const auto start = rig.golden.Ints(run + "start"), accepted = rig.golden.Ints(run + "accepted");
  const auto next = rig.golden.Ints(run + "next_token"), drafts = rig.golden.Ints(run + "draft_tokens");
  const auto sent = rig.golden.Ints(run + "num_draft");
  const bool greedy = run == "greedy.";  // the run with hidden states recorded
  const auto expected = rig.golden.Floats(greedy ? "greedy.block_hidden" : run + "confidence");
  rig.Prefill(text);
  for (size_t round = 0; round < start.size(); ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    ASSERT_EQ(start[round], int(text.size()) - 1);
    Proposal proposal = rig.Propose();
    ASSERT_EQ(proposal.tokens,
              std::vector<int32_t>(drafts.begin() + long(round) * 7, drafts.begin() + long(round + 1) * 7));
    if (greedy && round < 10) {
      for (int slot = 0; slot < 7; ++slot)
        ExpectRow(expected, round * 7 + size_t(slot), peer.Hidden(slot), "hidden");
    } else if (!greedy) {
      ExpectConfidence(std::span(expected).subspan(round * 7, 7), proposal.confidence);
    }
    const auto sure = [&](float c) { return c >= threshold; };
    const auto end = std::find_if_not(proposal.confidence.begin(), proposal.confidence.end(), sure);
    if (!proposal.confidence.empty()) proposal.Trim(int(end - proposal.confidence.begin()));
    ASSERT_EQ(proposal.size(), sent[round]);

    std::vector<int32_t> rows = {text.back()};
    rows.insert(rows.end(), proposal.tokens.begin(), proposal.tokens.end());
    std::vector<int32_t> best = rig.Verify(rows, start[round]);
    size_t kept = 0;
    while (kept < proposal.tokens.size() && best[kept] == proposal.tokens[kept]) ++kept;
    ASSERT_EQ(int(kept), accepted[round]);
    ASSERT_EQ(best[kept], next[round]);
    best.resize(kept + 1);
    rig.Observe(best, start[round]);
    text.insert(text.end(), best.begin(), best.end());
    rig.kv->Truncate(start[round] + int(kept) + 1);
  }
  auto output = rig.golden.Ints(run + "output_ids");
  text.resize(output.size());
  EXPECT_EQ(text, output);
}

TEST_P(GoldenBlockDrafter, GreedyGeneration) { ReplayGeneration(*rig_, prompt_, "greedy.", 0); }

TEST_P(GoldenDSpark, GenerationWithThreshold) { ReplayGeneration(*rig_, prompt_, "thr0.5.", 0.5f); }

TEST_P(GoldenBlockDrafter, SampledRounds) {
  const struct {
    const char* name;
    float temperature;
  } kRounds[] = {{"t1.0.r0.", 1}, {"t1.0.r1.", 1}, {"t1.0.r2.", 1}, {"t0.6.r0.", 0.6f}};
  for (const auto& [name, temperature] : kRounds) {
    SCOPED_TRACE(name);
    const std::string round = name;
    Rig rig(name_, isa_);
    rig.Prefill(golden().Ints(round + "prefix_ids"));
    ChainSampler sampler(golden().Ints(round + "draft_tokens"), rig.vocab());
    const Proposal proposal = rig.Propose(&sampler);
    if (HasHeads()) ExpectConfidence(golden().Floats(round + "confidence"), proposal.confidence);
    const auto q = golden().Floats(round + "q");
    ASSERT_EQ(sampler.offered.size(), 7u);
    for (size_t k = 0; k < 7; ++k) {
      std::vector<float>& row = sampler.offered[k];
      const float most = *std::max_element(row.begin(), row.end());
      float sum = 0;
      for (float& x : row) sum += x = std::exp((x - most) / temperature);
      for (float& x : row) x /= sum;
      ExpectRow(q, k, row, "q");
    }
  }
}

}  // namespace
}  // namespace dspark::test

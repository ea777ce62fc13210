// A block drafter whose head knows a part of the target's tokens: drafts, and what the Markov head reads of
// them, are the target's ids; rows of the head and of the Markov correction are the drafter's.
#include <gtest/gtest.h>

#include <algorithm>

#include "block_drafter_peer.h"
#include "core/rng.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "kernels/ops.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

constexpr int kVocab = 295, kKept = 90, kSlots = 7, kRows = 25;

DrafterConfig ReducedDSpark() {
  DrafterConfig c = TinyDrafterConfig(DrafterKind::kBlock);
  c.block_size = kSlots;
  c.markov = MarkovHead::kVanilla;
  c.markov_rank = 32;
  c.confidence = c.confidence_with_markov = true;
  c.backbone.vocab = kKept;
  for (int v = 0; v < kKept; ++v) c.draft_to_target.push_back(3 * v + 1);
  return c;
}

// The drafter behind one text of random taps.
struct Rig {
  explicit Rig(int candidates) : pool(2) {
    ModelConfig model = config.backbone;
    model.architecture = "llama";
    model.qk_norm = false;
    model.layers = config.target_layers;
    model.vocab = kVocab;
    model.tied_embeddings = true;
    target = Value(LoadTarget(RandomModel(model, 1), pool, {.max_rows = 8, .max_context = 64}));
    drafter = Value(LoadDrafter(RandomDrafter(config, 5), *target, pool,
                                {.max_sequences = 1, .max_context = 64, .candidates = candidates}));
    drafter->Begin(1, {});
    const size_t width = config.taps.size() * size_t(config.target_width);
    const std::vector<float> taps = RandomValues(3, 1, kRows * width, 0.5f);
    const std::vector<int32_t> next(kRows, 7);
    const ObservedRows rows{.sequence = 1, .next = next, .taps = taps.data(), .taps_stride = width};
    drafter->Observe({&rows, 1});
  }
  ~Rig() { drafter->End(1); }

  // Greedy without a sampler.
  Proposal Propose(DraftSampler* sampler = nullptr) {
    Proposal proposal;
    ProposeRequest request{.sequence = 1, .max_tokens = kSlots, .proposal = &proposal, .sampler = sampler};
    drafter->Propose({&request, 1});
    return proposal;
  }
  template <class T>
  static T Value(Result<T> made) {
    if (!made) CheckFailed(__FILE__, __LINE__, made.error().text);
    return std::move(made).value();
  }

  const DrafterConfig config = ReducedDSpark();
  ThreadPool pool;
  std::unique_ptr<Target> target;
  std::unique_ptr<Drafter> drafter;
};

// U_k[v] + W2[v] · W1[previous] under the target's id of v, -∞ where there is no v.
std::vector<float> Corrected(const Rig& rig, std::span<const float> u, int32_t previous) {
  const DrafterFiles files = RandomDrafter(rig.config, 5);
  const auto row = [&](const char* name, int32_t r) {
    const auto* values = reinterpret_cast<const float*>(files.weights->Find(name)->bytes.data());
    return values + r * rig.config.markov_rank;
  };
  std::vector<float> logits(kVocab, -INFINITY);
  for (int v = 0; v < kKept; ++v) {
    float& logit = logits[size_t(rig.config.draft_to_target[size_t(v)])] = u[size_t(v)];
    for (int i = 0; i < rig.config.markov_rank; ++i)
      logit += row("markov_w2.weight", v)[i] * row("markov_w1.weight", previous)[i];
  }
  return logits;
}

// Chooses `chain` slot by slot, and compares what it is offered with the formula.
void ExpectOffers(Rig& rig, int candidates, const std::vector<int32_t>& chain) {
  ChainSampler sampler(chain, kVocab);
  rig.Propose(&sampler);
  BlockDrafterPeer peer(*rig.drafter);
  for (size_t k = 0; k < kSlots; ++k) {
    const std::vector<float> expected = Corrected(rig, peer.Logits(int(k)), k == 0 ? 7 : chain[k - 1]);
    const auto& offered = sampler.offered[k];
    EXPECT_EQ(kVocab - std::ranges::count(offered, -INFINITY), candidates) << "slot " << k;
    for (size_t v = 0; v < kVocab; ++v) {
      if (offered[v] == -INFINITY) continue;
      EXPECT_NEAR(offered[v], expected[v], 1e-4f) << "slot " << k << " id " << v;
    }
  }
}

TEST(BlockDrafterReduced, SampledDraftsAreChosenAmongTheTargetsIds) {
  constexpr int kCandidates = 64;
  Rig rig(kCandidates);
  ExpectOffers(rig, kCandidates, {4, 16, 1, 268, 100, 31, 4});
}

// What a greedy draft was decided from shows in what a sampler is offered behind the same drafts; and which
// token the next slot read, in its confidence.
TEST(BlockDrafterReduced, GreedyDraftsAreTheTargetsIds) {
  Rig rig(/*candidates=*/0);
  const Proposal greedy = rig.Propose();
  ASSERT_EQ(greedy.size(), kSlots);
  ChainSampler sampler(greedy.tokens, kVocab);
  const Proposal same = rig.Propose(&sampler);
  for (size_t k = 0; k < kSlots; ++k) {
    const auto& offered = sampler.offered[k];
    EXPECT_EQ(greedy.tokens[k], std::ranges::max_element(offered) - offered.begin()) << "slot " << k;
    EXPECT_EQ(greedy.confidence[k], same.confidence[k]) << "slot " << k;
  }
}

}  // namespace
}  // namespace dspark::test

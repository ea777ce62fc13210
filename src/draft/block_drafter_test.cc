#include "draft/block_drafter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "block_drafter_peer.h"
#include "core/rng.h"
#include "draft/random_weights.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

using test::ChainSampler;

constexpr int kVocab = 300, kWidth = 64, kSlots = 7;

ModelConfig TinyTarget() {
  ModelConfig c;
  c.architecture = "llama";
  c.layers = 4;
  c.d_model = kWidth;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.d_ffn = 128;
  c.vocab = kVocab;
  c.max_context = 512;
  c.tied_embeddings = true;
  return c;
}

DrafterConfig TinyDrafter(MarkovHead markov = MarkovHead::kVanilla) {
  DrafterConfig c;
  c.backbone = TinyTarget();
  c.backbone.layers = 2;
  c.backbone.qk_norm = true;
  c.target_width = kWidth;
  c.target_vocab = kVocab;
  c.taps = {0, 2};
  c.block_size = kSlots;
  c.mask_token = kVocab - 1;
  c.markov = markov;
  c.markov_rank = markov == MarkovHead::kNone ? 0 : 32;
  c.confidence = markov != MarkovHead::kNone;
  c.confidence_with_markov = c.confidence;
  return c;
}

// Draws from the softmax of what it is offered; the same numbers for the same calls.
class SeededSampler : public DraftSampler {
 public:
  explicit SeededSampler(uint64_t seed) : seed_(seed) {}
  int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) override {
    std::vector<size_t> order(ids.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids[a] < ids[b]; });
    std::vector<int32_t> sorted;
    std::vector<float> probs;
    for (size_t i : order) {
      sorted.push_back(ids[i]);
      probs.push_back(logits[i]);
    }
    Softmax(Isa::kReference, probs, 1, probs.data());
    double u = UniformDouble(seed_, draws_++, Purpose::kTest);
    size_t at = 0;
    while (at + 1 < sorted.size() && (u -= double(probs[at])) >= 0) ++at;
    proposal->Add(sorted[at], {sorted, probs});
    return sorted[at];
  }

 private:
  const uint64_t seed_;
  uint64_t draws_ = 0;
};

struct RigOptions {
  DrafterConfig config = TinyDrafter();
  DrafterLimits limits = {.max_sequences = 20, .max_context = 128};
  int threads = 2;
  Isa isa = DetectIsa();
  uint64_t seed = 5;
};

// A random drafter and texts: the taps and the token of every position of sequence `id` are functions of
// both.
struct Rig {
  explicit Rig(const RigOptions& o = {}) : pool(o.threads, o.isa), config(o.config) {
    auto loaded = LoadTarget(RandomModel(TinyTarget(), 1), pool, {.max_rows = 8, .max_context = 64});
    DSPARK_CHECK(loaded.ok());
    target = std::move(loaded).value();
    auto drafts = LoadDrafter(RandomDrafter(config, o.seed), *target, pool, o.limits);
    if (!drafts) CheckFailed(__FILE__, __LINE__, drafts.error().text);
    drafter = std::move(drafts).value();
  }

  static int32_t Token(SequenceId id, int position) {
    return int32_t(UniformDouble(uint64_t(id), uint64_t(position), Purpose::kTest) * (kVocab - 1));
  }
  void Observe(SequenceId id, int from, int to) {
    const size_t width = config.taps.size() * kWidth, rows = size_t(to - from);
    std::vector<float> taps(rows * width);
    std::vector<int32_t> next;
    for (int p = from; p < to; ++p) {
      next.push_back(Token(id, p + 1));
      for (size_t i = 0; i < width; ++i)
        taps[size_t(p - from) * width + i] =
            UniformFloat(uint64_t(id), uint64_t(p), Purpose::kTest, uint32_t(i + 1)) - 0.5f;
    }
    const ObservedRows observed{
        .sequence = id, .position = from, .next = next, .taps = taps.data(), .taps_stride = width};
    drafter->Observe({&observed, 1});
  }
  void Start(SequenceId id, int rows) {
    drafter->Begin(id, {});
    Observe(id, 0, rows);
  }
  // Odd sequences are sampled.
  std::vector<Proposal> Propose(std::span<const SequenceId> ids, int max_tokens = kSlots) {
    std::vector<Proposal> proposals(ids.size());
    std::vector<SeededSampler> samplers;
    std::vector<ProposeRequest> requests;
    for (SequenceId id : ids) samplers.emplace_back(uint64_t(id));
    for (size_t i = 0; i < ids.size(); ++i)
      requests.push_back({.sequence = ids[i],
                          .max_tokens = max_tokens,
                          .proposal = &proposals[i],
                          .sampler = ids[i] % 2 ? &samplers[i] : nullptr});
    drafter->Propose(requests);
    return proposals;
  }
  Proposal Propose(SequenceId id, int max_tokens = kSlots) { return Propose({&id, 1}, max_tokens)[0]; }
  Proposal Propose(SequenceId id, DraftSampler& sampler) {
    Proposal proposal;
    ProposeRequest request{id, kSlots, &proposal, &sampler};
    drafter->Propose({&request, 1});
    return proposal;
  }

  ThreadPool pool;
  const DrafterConfig config;
  std::unique_ptr<Target> target;
  std::unique_ptr<Drafter> drafter;
};

template <class A, class B>
bool SameBits(const A& a, const B& b) {
  using T = typename A::value_type;
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

void ExpectSame(const Proposal& a, const Proposal& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_TRUE(SameBits(a.confidence, b.confidence));
  ASSERT_EQ(a.sampled(), b.sampled());
  for (int k = 0; a.sampled() && k < a.size(); ++k) {
    EXPECT_TRUE(SameBits(a.Q(k).ids, b.Q(k).ids));
    EXPECT_TRUE(SameBits(a.Q(k).probs, b.Q(k).probs));
  }
}

class BlockDrafterTest : public testing::TestWithParam<std::tuple<MarkovHead, WeightFormat>> {
 protected:
  RigOptions Options() const {
    RigOptions options{.config = TinyDrafter(std::get<0>(GetParam()))};
    options.limits.weights = std::get<1>(GetParam());
    options.limits.own_int4_head = std::get<1>(GetParam()) == WeightFormat::kInt4Min;
    return options;
  }
};

std::string CaseName(const testing::TestParamInfo<std::tuple<MarkovHead, WeightFormat>>& info) {
  const char* heads[] = {"none", "vanilla", "gated", "rnn"};
  const WeightFormat format = std::get<1>(info.param);
  return std::string(heads[int(std::get<0>(info.param))]) + (format == WeightFormat::kF32    ? "_f32"
                                                             : format == WeightFormat::kInt8 ? "_int8"
                                                                                             : "_int4");
}
INSTANTIATE_TEST_SUITE_P(Heads, BlockDrafterTest,
                         testing::Combine(testing::Values(MarkovHead::kNone, MarkovHead::kVanilla,
                                                          MarkovHead::kGated, MarkovHead::kRnn),
                                          testing::Values(WeightFormat::kF32, WeightFormat::kInt8,
                                                          WeightFormat::kInt4Min)),
                         CaseName);

// Batch, workers and instruction set have no say in a proposal.
TEST_P(BlockDrafterTest, BatchesDoNotChangeAProposal) {
  std::vector<SequenceId> ids(16);
  std::iota(ids.begin(), ids.end(), 100);
  std::vector<Proposal> first;
  for (const auto& [threads, isa] : {std::pair(1, DetectIsa()), {2, DetectIsa()}, {3, Isa::kReference}}) {
    RigOptions options = Options();
    options.threads = threads;
    options.isa = isa;
    Rig rig(options);
    for (SequenceId id : ids) rig.Start(id, 3 + int(id - 100) * 5);
    const auto all = rig.Propose(ids);
    if (first.empty()) first = all;
    for (size_t i = 0; i < ids.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "sequence " << ids[i] << ", " << threads << " threads");
      EXPECT_EQ(all[i].size(), kSlots);
      EXPECT_EQ(all[i].confidence.size(), options.config.confidence ? size_t(kSlots) : 0);
      ExpectSame(all[i], first[i]);
      ExpectSame(rig.Propose(ids[i]), first[i]);
    }
    for (size_t i = 0; i < 16; i += 4) {
      const auto four = rig.Propose(std::span(ids).subspan(i, 4));
      for (size_t j = 0; j < 4; ++j) ExpectSame(four[j], first[i + j]);
    }
    for (SequenceId id : ids) rig.drafter->End(id);
  }
  EXPECT_NE(first[0].tokens, first[2].tokens);
}

// A drafter that follows a text round by round proposes what one proposes that sees it at once, at every
// depth.
TEST_P(BlockDrafterTest, RoundsDoNotChangeAProposal) {
  Rig follower(Options()), other(Options());
  follower.drafter->Begin(1, {});
  int rows = 0;
  for (int accepted : {20, 1, 1, 8, 3, 1, 2, 8, 31, 5}) {
    follower.Observe(1, rows, rows + accepted);
    rows += accepted;
    const Proposal proposal = follower.Propose(1);
    other.Start(1, rows);
    ExpectSame(other.Propose(1), proposal);
    other.drafter->End(1);
  }
  follower.drafter->End(1);
}

TEST(BlockDrafterConfidence, IsTheSigmoidOfTheLogitOverItsTemperature) {
  RigOptions options;
  Rig plain(options);
  options.config.confidence_temperatures = {2, 0.5f, 1, 1.5f, 3, 0.25f, 4};
  Rig calibrated(options);
  for (Rig* rig : {&plain, &calibrated}) rig->Start(1, 20);
  const Proposal raw = plain.Propose(1), scaled = calibrated.Propose(1);
  EXPECT_EQ(raw.tokens, scaled.tokens);
  ASSERT_EQ(scaled.confidence.size(), size_t(kSlots));
  for (size_t k = 0; k < scaled.confidence.size(); ++k) {
    const double c = double(raw.confidence[k]), z = std::log(c / (1 - c));
    EXPECT_NEAR(scaled.confidence[k],
                1 / (1 + std::exp(-z / double(options.config.confidence_temperatures[k]))), 1e-5);
  }
  EXPECT_NE(raw.confidence[0], scaled.confidence[0]);
  EXPECT_EQ(raw.confidence[2], scaled.confidence[2]);  // of temperature 1: the same bits
}

TEST(BlockDrafterShapes, ChunksDoNotChangeAProposal) {
  Rig whole, chunks;
  whole.Start(3, 120);
  const Proposal expected = whole.Propose(3);
  for (int chunk : {1, 7, 50}) {
    chunks.drafter->Begin(3, {});
    for (int from = 0; from < 120; from += chunk) chunks.Observe(3, from, std::min(120, from + chunk));
    ExpectSame(chunks.Propose(3), expected);
    chunks.drafter->End(3);
  }
  whole.drafter->End(3);
}

// Rows of several sequences in turns, all projected by the first proposal.
TEST(BlockDrafterShapes, InterleavedSequencesDoNotChangeAProposal) {
  RigOptions options;
  options.limits.block_tokens = 16;
  Rig turns(options), alone(options);
  for (SequenceId id : {1, 2, 3}) turns.drafter->Begin(id, {});
  for (int p = 0; p < 80; p += 2) {
    for (SequenceId id : {1, 2, 3}) turns.Observe(id, p, p + 2);
  }
  for (SequenceId id : {1, 2, 3}) {
    alone.Start(id, 80);
    ExpectSame(turns.Propose(id), alone.Propose(id));
    alone.drafter->End(id), turns.drafter->End(id);
  }
}

TEST(BlockDrafterShapes, MoreRowsThanWaitAreFlushed) {
  constexpr int kRows = 2 * BlockDrafter::kPendingRows + 30;
  RigOptions options;
  options.limits.max_context = 1024;
  Rig rig(options), stepwise(options);
  rig.Start(1, kRows);
  EXPECT_EQ(BlockDrafterPeer(*rig.drafter).pending_rows(), 30);
  stepwise.drafter->Begin(1, {});
  for (int p = 0; p < kRows; p += 100) {
    stepwise.Observe(1, p, std::min(p + 100, kRows));
    stepwise.Propose(1);
  }
  ExpectSame(rig.Propose(1), stepwise.Propose(1));
  rig.drafter->End(1), stepwise.drafter->End(1);
}

TEST(BlockDrafterShapes, KvBlockSizeDoesNotChangeAProposal) {
  std::vector<Proposal> proposals;
  for (int block_tokens : {16, 32, 64}) {
    RigOptions options;
    options.limits.block_tokens = block_tokens;
    Rig rig(options);
    rig.Start(4, 77);
    proposals.push_back(rig.Propose(4));
    rig.drafter->End(4);
  }
  ExpectSame(proposals[0], proposals[1]);
  ExpectSame(proposals[0], proposals[2]);
}

TEST(BlockDrafterShapes, DraftsUpToTheEndOfContext) {
  RigOptions wide;
  wide.limits.max_context = 200;
  Rig rig, roomy(wide);  // max_context 128
  rig.Start(2, 128);
  roomy.Start(2, 128);
  ExpectSame(rig.Propose(2), roomy.Propose(2));
  rig.drafter->End(2), roomy.drafter->End(2);
}

// A slot's memory and rows that still waited leave nothing to the next sequence.
TEST(BlockDrafterShapes, ASecondSequenceOnAReusedSlot) {
  Rig rig, fresh;
  rig.Start(1, 100);
  rig.Start(2, 9);
  rig.Propose(1);
  rig.Observe(1, 100, 110);
  rig.Observe(2, 9, 14);  // waits behind rows of 1
  rig.drafter->End(1);
  rig.Start(3, 40);
  rig.Observe(2, 14, 15);
  fresh.Start(2, 15);
  fresh.Start(3, 40);
  const SequenceId both[] = {3, 2};
  const auto reused = rig.Propose(both);
  ExpectSame(reused[0], fresh.Propose(3));
  ExpectSame(reused[1], fresh.Propose(2));
  for (Rig* r : {&rig, &fresh}) r->drafter->End(2), r->drafter->End(3);
}

TEST(BlockDrafterShapes, ProposesNoMoreThanIsAskedFor) {
  Rig rig;
  rig.drafter->Begin(2, {});
  EXPECT_EQ(rig.Propose(2).size(), 0);  // nothing observed yet
  rig.Observe(2, 0, 30);
  const Proposal full = rig.Propose(2, 100);
  EXPECT_EQ(full.size(), kSlots);
  for (int n : {0, 1, 3}) {  // the block keeps its γ slots
    Proposal head = full;
    head.Trim(n);
    ExpectSame(rig.Propose(2, n), head);
  }
  Proposal none;
  ProposeRequest request{.sequence = 2, .max_tokens = 7, .proposal = &none, .free_only = true};
  rig.drafter->Propose({&request, 1});
  EXPECT_EQ(none.size(), 0);
  rig.drafter->End(2);
}

// z-lab's form: slot j drafts its own position, slot 0 nothing, by argmax whatever the sampler.
TEST(BlockDrafterShapes, SlotPredictsItself) {
  RigOptions options{.config = TinyDrafter(MarkovHead::kNone)};
  Rig anchor(options);
  options.config.anchor_first = false;
  Rig own(options);
  EXPECT_EQ(own.drafter->max_tokens(), kSlots - 1);
  anchor.Start(2, 21), own.Start(2, 21);
  Proposal expected = anchor.Propose(2);
  expected.tokens.erase(expected.tokens.begin());
  ChainSampler sampler(std::vector<int32_t>(kSlots, 1), kVocab);
  const Proposal proposal = own.Propose(2, sampler);
  ExpectSame(proposal, expected);
  EXPECT_TRUE(sampler.offered.empty());
  anchor.drafter->End(2), own.drafter->End(2);
}

// The candidates of a sampled draft are the likeliest of U, with the logits they have among all.
TEST(BlockDrafterShapes, CandidatesAreTheLikeliest) {
  for (MarkovHead head : {MarkovHead::kNone, MarkovHead::kVanilla, MarkovHead::kRnn}) {
    RigOptions options{.config = TinyDrafter(head)};
    options.limits.candidates = 0;
    Rig all(options);
    options.limits.candidates = 24;
    Rig few(options);
    all.Start(1, 50), few.Start(1, 50);
    const std::vector<int32_t> chain = {4, 8, 15, 16, 23, 42, 5};
    ChainSampler wide(chain, kVocab), narrow(chain, kVocab);
    all.Propose(1, wide), few.Propose(1, narrow);
    BlockDrafterPeer peer(*few.drafter);
    for (int k = 0; k < kSlots; ++k) {
      int32_t top[24];
      float values[24];
      TopK(DetectIsa(), peer.Logits(k), 24, top, values);
      std::vector<float> expected(size_t(kVocab), -INFINITY);
      for (int32_t id : top) expected[size_t(id)] = wide.offered[size_t(k)][size_t(id)];
      EXPECT_EQ(narrow.offered[size_t(k)], expected) << "slot " << k;
    }
    all.drafter->End(1), few.drafter->End(1);
  }
}

// A reduced vocabulary, with a head of its own or with rows of the target's.
TEST(BlockDrafterShapes, ReducedVocabulary) {
  for (bool own : {false, true}) {
    RigOptions options{.config = TinyDrafter(MarkovHead::kNone)};
    options.limits.candidates = 0;
    Rig full(options);
    options.config.own_head = own;
    options.config.backbone.vocab = 90;
    for (int v = 0; v < 90; ++v) options.config.draft_to_target.push_back(v * 3 + 1);
    Rig reduced(options);
    full.Start(1, 25), reduced.Start(1, 25);
    ChainSampler wide(std::vector<int32_t>(kSlots, 1), kVocab), narrow = wide;
    full.Propose(1, wide), reduced.Propose(1, narrow);
    for (size_t k = 0; k < kSlots; ++k) {
      for (size_t v = 0; v < kVocab; ++v) {
        if (v % 3 != 1 || v >= 270)
          EXPECT_EQ(narrow.offered[k][v], -INFINITY);
        else if (!own)
          EXPECT_EQ(narrow.offered[k][v], wide.offered[k][v]);
        else
          EXPECT_TRUE(std::isfinite(narrow.offered[k][v]));
      }
    }
    const SequenceId id = 1;
    Proposal greedy;
    ProposeRequest request{id, kSlots, &greedy};
    reduced.drafter->Propose({&request, 1});
    for (size_t k = 0; k < kSlots; ++k) {
      const auto& row = narrow.offered[k];
      EXPECT_EQ(greedy.tokens[k], int32_t(std::max_element(row.begin(), row.end()) - row.begin()));
    }
    full.drafter->End(1), reduced.drafter->End(1);
  }
}

// Four bits for the drafter's copy of the head: the same hidden states, logits nearby.
TEST(BlockDrafterShapes, OwnInt4Head) {
  RigOptions options;
  Rig full(options);
  options.limits.own_int4_head = true;
  Rig four(options);
  full.Start(2, 25), four.Start(2, 25);
  full.Propose(2), four.Propose(2);
  BlockDrafterPeer a(*full.drafter), b(*four.drafter);
  double squares = 0, error = 0;
  for (int k = 0; k < kSlots; ++k) {
    EXPECT_TRUE(std::equal(a.Hidden(k).begin(), a.Hidden(k).end(), b.Hidden(k).begin()));
    for (size_t v = 0; v < kVocab; ++v) {
      squares += double(a.Logits(k)[v]) * double(a.Logits(k)[v]);
      error += std::pow(double(a.Logits(k)[v]) - double(b.Logits(k)[v]), 2);
    }
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / squares), 0.15);
  EXPECT_GT(four.drafter->weight_bytes(), full.drafter->weight_bytes());
  full.drafter->End(2), four.drafter->End(2);
}

TEST(BlockDrafterShapes, AMissingTensorIsOneLine) {
  Rig rig;
  DrafterFiles files = RandomDrafter(TinyDrafter(), 1);
  files.weights = std::make_unique<RandomWeights>(DrafterShapes(TinyDrafter(MarkovHead::kNone)), 1);
  const auto drafter = LoadDrafter(files, *rig.target, rig.pool, {});
  ASSERT_FALSE(drafter.ok());
  EXPECT_NE(drafter.error().text.find("is missing"), std::string::npos);
  EXPECT_EQ(drafter.error().text.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace dspark

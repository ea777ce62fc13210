// What Eagle3 and MTP share, on tiny random drafters: a proposal is a function of the observed text alone.
#include "draft/sequential_drafter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "draft/random_weights.h"
#include "sequential_fixture.h"

namespace dspark::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kWidth = 64, kVocab = 300, kDrafts = 5, kContext = 160;

std::vector<float> RandomFloats(uint32_t seed, size_t n, float scale, float centre = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(centre, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

ModelConfig Backbone(int vocab) {
  ModelConfig config;
  config.layers = 1;
  config.d_model = kWidth;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.d_ffn = 128;
  config.vocab = vocab;
  return config;
}

// Eagle3 has a vocabulary of its own, two thirds of the target's; MTP shares all.
DrafterConfig RandomConfig(DrafterKind kind) {
  DrafterConfig config;
  config.kind = kind;
  config.backbone = Backbone(kind == DrafterKind::kEagle3 ? kVocab * 2 / 3 : kVocab);
  config.target_width = kWidth;
  config.target_vocab = kVocab;
  config.block_size = kDrafts;
  if (kind == DrafterKind::kMtp) return config;
  config.taps = {0, 2};
  config.own_head = true;
  for (int i = 0; i < kVocab; ++i) {
    if (i % 3 != 1) config.draft_to_target.push_back(i);
  }
  return config;
}

LendingTarget RandomTarget() {
  ModelConfig config = Backbone(kVocab);
  config.layers = 4;
  return {config, PackFloats(kVocab, kWidth, RandomFloats(1, kVocab * kWidth, 1)),
          PackFloats(kVocab, kWidth, RandomFloats(2, kVocab * kWidth, 0.4f))};
}

struct Options {
  DrafterKind kind = DrafterKind::kEagle3;
  int threads = 2;
  Isa isa = DetectIsa();
  DrafterLimits limits = {.max_sequences = 16, .max_context = kContext, .block_tokens = 16, .candidates = 0};
};

struct Rig {
  explicit Rig(const Options& options)
      : pool(options.threads, options.isa), files(RandomDrafter(RandomConfig(options.kind), 100)) {
    auto loaded = LoadDrafter(files, target, pool, options.limits);
    if (!loaded) CheckFailed(__FILE__, __LINE__, loaded.error().text);
    drafter = std::move(loaded).value();
    tap_width = drafter->tap_layers().size() * kWidth;
  }
  LendingTarget target = RandomTarget();
  ThreadPool pool;
  DrafterFiles files;
  std::unique_ptr<Drafter> drafter;
  size_t tap_width = 0;
};

// A text and its rows' taps, by number.
struct Text {
  Text(uint32_t seed, size_t tap_width) : taps(RandomFloats(seed + 1000, kContext * tap_width, 1)) {
    std::mt19937 random(seed);
    for (int i = 0; i <= kContext; ++i) tokens.push_back(int32_t(random() % kVocab));
  }
  std::vector<int32_t> tokens;
  std::vector<float> taps;
};

void ObserveText(Rig& rig, SequenceId id, const Text& text, int from, int to) {
  ObserveRows(*rig.drafter, id, from, to, text.tokens, text.taps, rig.tap_width);
}

// What one sequence drafts: tokens, and the logits they were drawn from, bit for bit.
struct Drafted {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  bool operator==(const Drafted&) const = default;
};

// The definition: a fresh drafter that has seen rows 0 … rows - 1 at once drafts for this sequence alone.
Drafted FromScratch(const Options& options, const Text& text, int rows, int most = kDrafts) {
  Rig rig(options);
  rig.drafter->Begin(1, {});
  ObserveText(rig, 1, text, 0, rows);
  RecordingSampler sampler;
  Drafted drafted;
  drafted.tokens = ProposeAlone(*rig.drafter, 1, &sampler, most).tokens;
  drafted.logits = sampler.logits;
  return drafted;
}

// Some sequences draft in one call; even ones by sampler, odd ones greedily.
std::vector<Drafted> ProposeTogether(Rig& rig, const std::vector<SequenceId>& ids,
                                     const std::vector<int>& most) {
  std::vector<RecordingSampler> samplers(ids.size());
  std::vector<Proposal> proposals(ids.size());
  std::vector<ProposeRequest> requests;
  for (size_t i = 0; i < ids.size(); ++i) {
    requests.push_back({.sequence = ids[i], .max_tokens = most[i], .proposal = &proposals[i]});
    if (ids[i] % 2 == 0) requests[i].sampler = &samplers[i];
  }
  rig.drafter->Propose(requests);
  std::vector<Drafted> drafted;
  for (size_t i = 0; i < ids.size(); ++i) drafted.push_back({proposals[i].tokens, samplers[i].logits});
  return drafted;
}

// A greedy proposal's logits are not seen.
void ExpectDrafted(const Drafted& got, const Drafted& wanted, SequenceId id) {
  EXPECT_EQ(got.tokens, wanted.tokens) << "sequence " << id;
  EXPECT_TRUE(id % 2 || got.logits == wanted.logits) << "sequence " << id;
}

std::string KindName(const testing::TestParamInfo<DrafterKind>& info) {
  return info.param == DrafterKind::kEagle3 ? "Eagle3" : "Mtp";
}

class SequentialDrafterTest : public testing::TestWithParam<DrafterKind> {
 protected:
  Options options_{.kind = GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Kinds, SequentialDrafterTest,
                         testing::Values(DrafterKind::kEagle3, DrafterKind::kMtp), KindName);

TEST_P(SequentialDrafterTest, BatchesDraftTheSameBits) {
  for (const std::optional<WeightFormat> weights :
       {std::optional<WeightFormat>(), std::optional(WeightFormat::kInt8),
        std::optional(WeightFormat::kInt4Min)}) {
    options_.limits.weights = weights;
    for (const size_t batch : {size_t(1), size_t(4), size_t(16)}) {
      Rig rig(options_);
      std::vector<SequenceId> ids;
      std::vector<int> most;
      for (SequenceId id = 0; id < 16; ++id) {
        rig.drafter->Begin(id, {});
        ObserveText(rig, id, Text(uint32_t(id), rig.tap_width), 0, int(1 + id * 9));
        ids.push_back(id);
        most.push_back(int(1 + id * 3 % (kDrafts + 2)));  // more than max_tokens too
        if (ids.size() < batch) continue;
        const std::vector<Drafted> drafted = ProposeTogether(rig, ids, most);
        for (size_t i = 0; i < ids.size(); ++i) {
          const Text text(uint32_t(ids[i]), rig.tap_width);
          ExpectDrafted(drafted[i], FromScratch(options_, text, int(1 + ids[i] * 9), most[i]), ids[i]);
        }
        ids.clear(), most.clear();
      }
    }
  }
}

// Three sequences grow by random steps, in each other's company; some steps draft, so that K/V of drafts are
// left behind, some do not, so that rows of several sequences are read together.
TEST_P(SequentialDrafterTest, StepsAndCompanyDoNotMatter) {
  for (uint32_t seed = 0; seed < 3; ++seed) {
    Rig rig(options_);
    std::mt19937 random(seed);
    std::vector<Text> texts;
    std::vector<int> rows(3);
    for (uint32_t id = 0; id < 3; ++id) {
      texts.emplace_back(id, rig.tap_width);
      rig.drafter->Begin(id, {});
    }
    for (int step = 0; step < 60; ++step) {
      const size_t id = random() % 3;
      const int more = std::min(int(random() % 30 == 0 ? 50 : 1 + random() % 6), kContext - rows[id]);
      ObserveText(rig, SequenceId(id), texts[id], rows[id], rows[id] + more);
      rows[id] += more;
      if (random() % 3) continue;
      const auto drafted = ProposeTogether(rig, {SequenceId(id)}, {kDrafts});
      ExpectDrafted(drafted[0], FromScratch(options_, texts[id], rows[id]), SequenceId(id));
    }
  }
}

TEST_P(SequentialDrafterTest, BlocksThreadsAndInstructionsDoNotMatter) {
  const Text text(3, RandomConfig(GetParam()).taps.empty() ? kWidth : 2 * kWidth);
  const Drafted wanted = FromScratch(options_, text, 150);
  ASSERT_EQ(wanted.tokens.size(), size_t(kDrafts));
  for (int block_tokens : {32, 64}) {
    Options other = options_;
    other.limits.block_tokens = block_tokens;
    other.threads = 3;
    EXPECT_TRUE(FromScratch(other, text, 150) == wanted) << block_tokens;
  }
  for (Isa isa : {Isa::kReference, Isa::kAvx2}) {
    Options other = options_;
    other.isa = isa;
    if (IsaSupported(isa)) {
      EXPECT_TRUE(FromScratch(other, text, 150) == wanted) << IsaName(isa);
    }
  }
}

// Cosine of the first draft's logits with those of the weights as they are.
TEST_P(SequentialDrafterTest, QuantisedWeightsDraftMuchTheSame) {
  const Text text(15, RandomConfig(GetParam()).taps.empty() ? kWidth : 2 * kWidth);
  const std::vector<float> exact = FromScratch(options_, text, 60, 1).logits;
  for (const auto& [weights, least] :
       {std::pair(WeightFormat::kInt8, 0.999), std::pair(WeightFormat::kInt4Min, 0.97)}) {
    options_.limits.weights = weights;
    const std::vector<float> rounded = FromScratch(options_, text, 60, 1).logits;
    ASSERT_EQ(rounded.size(), exact.size());
    double product = 0, exact_square = 0, rounded_square = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      product += double(exact[i]) * double(rounded[i]);
      exact_square += double(exact[i]) * double(exact[i]);
      rounded_square += double(rounded[i]) * double(rounded[i]);
    }
    EXPECT_GT(product / std::sqrt(exact_square * rounded_square), least);
  }
}

TEST_P(SequentialDrafterTest, ProposingTwiceGivesTheSame) {
  Rig rig(options_);
  const Text text(4, rig.tap_width);
  rig.drafter->Begin(2, {});
  ObserveText(rig, 2, text, 0, 20);
  const Drafted first = ProposeTogether(rig, {2}, {3})[0];
  EXPECT_TRUE(ProposeTogether(rig, {2}, {3})[0] == first);
}

TEST_P(SequentialDrafterTest, AFreedPlaceServesTheNextSequence) {
  options_.limits.max_sequences = 1;
  Rig rig(options_);
  const auto& drafter = static_cast<SequentialDrafter&>(*rig.drafter);
  const int free_blocks = SequentialDrafterPeer::FreeBlocks(drafter);
  const Text first(5, rig.tap_width), second(6, rig.tap_width);
  for (const bool read : {false, true}) {
    rig.drafter->Begin(1, {});
    ObserveText(rig, 1, first, 0, kContext);
    if (read) ProposeTogether(rig, {1}, {kDrafts});
    rig.drafter->End(1);
    EXPECT_EQ(SequentialDrafterPeer::FreeBlocks(drafter), free_blocks);
    rig.drafter->Begin(2, {});
    ObserveText(rig, 2, second, 0, 33);
    EXPECT_TRUE(ProposeTogether(rig, {2}, {kDrafts})[0] == FromScratch(options_, second, 33));
    rig.drafter->Begin(2, {});  // anew
    ObserveText(rig, 2, first, 0, 21);
    EXPECT_TRUE(ProposeTogether(rig, {2}, {kDrafts})[0] == FromScratch(options_, first, 21));
    rig.drafter->End(2);
  }
}

TEST_P(SequentialDrafterTest, AnEndedSequenceTakesOnlyItsOwnPendingRows) {
  Rig rig(options_);
  const Text gone(7, rig.tap_width), stays(8, rig.tap_width);
  rig.drafter->Begin(1, {});
  rig.drafter->Begin(2, {});
  for (int row = 0; row < 20; ++row) {
    ObserveText(rig, 1, gone, row, row + 1);
    ObserveText(rig, 2, stays, 2 * row, 2 * row + 2);
  }
  rig.drafter->End(1);
  EXPECT_TRUE(ProposeTogether(rig, {2}, {kDrafts})[0] == FromScratch(options_, stays, 40));
}

TEST_P(SequentialDrafterTest, TheLastPositionsOfTheContext) {
  Rig rig(options_);
  const Text text(9, rig.tap_width);
  rig.drafter->Begin(2, {});
  for (int rows : {kContext - 1, kContext}) {
    ObserveText(rig, 2, text, rows == kContext ? kContext - 1 : 0, rows);
    EXPECT_TRUE(ProposeTogether(rig, {2}, {kDrafts})[0] == FromScratch(options_, text, rows));
  }
}

// Each observed row is read: another tap or token anywhere changes the logits.
TEST_P(SequentialDrafterTest, EveryRowCounts) {
  Text text(10, RandomConfig(GetParam()).taps.empty() ? kWidth : 2 * kWidth);
  const Drafted whole = FromScratch(options_, text, 40, 1);
  const size_t width = text.taps.size() / kContext;
  for (size_t row : {size_t(0), size_t(17), size_t(39)}) {
    Text other = text;
    other.tokens[row + 1] = (text.tokens[row + 1] + 1) % kVocab;
    EXPECT_FALSE(FromScratch(options_, other, 40, 1).logits == whole.logits) << row;
    other = text;
    other.taps[row * width] += 1;
    EXPECT_FALSE(FromScratch(options_, other, 40, 1).logits == whole.logits) << row;
  }
  Text other = text;
  other.tokens[0] = (text.tokens[0] + 1) % kVocab;  // no row reads the first token,
  other.tokens[41] = (text.tokens[41] + 1) % kVocab;
  other.taps[40 * width] += 1;  // nor what has not been observed
  EXPECT_TRUE(FromScratch(options_, other, 40, 1) == whole);
}

TEST_P(SequentialDrafterTest, CandidatesAreTheLikeliestTokensOfTheTarget) {
  Rig all(options_);
  options_.limits.candidates = 7;
  Rig few(options_);
  const Text text(11, all.tap_width);
  std::vector<RecordingSampler> samplers(2);
  Rig* rigs[] = {&all, &few};
  for (size_t i = 0; i < 2; ++i) {
    rigs[i]->drafter->Begin(1, {});
    ObserveText(*rigs[i], 1, text, 0, 30);
    ProposeAlone(*rigs[i]->drafter, 1, &samplers[i], 1);
  }
  const std::vector<int32_t>& known = all.files.config.draft_to_target;
  ASSERT_EQ(samplers[0].ids.size(), size_t(all.files.config.backbone.vocab));
  if (!known.empty()) {
    EXPECT_EQ(samplers[0].ids, known);
  }
  std::vector<std::pair<float, int32_t>> ranked;
  for (size_t i = 0; i < samplers[0].ids.size(); ++i)
    ranked.push_back({-samplers[0].logits[i], samplers[0].ids[i]});
  std::sort(ranked.begin(), ranked.end());
  ASSERT_EQ(samplers[1].ids.size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(samplers[1].ids[i], ranked[i].second);
    EXPECT_EQ(samplers[1].logits[i], -ranked[i].first);
  }
}

TEST_P(SequentialDrafterTest, TiesGoToTheLowestToken) {
  Rig rig(options_);
  rig.files.config.own_head = false;
  PackedMatrix zeros(kVocab, kWidth, WeightFormat::kF32);  // every logit is 0
  const LendingTarget target(
      rig.target.config(), PackFloats(kVocab, kWidth, RandomFloats(1, kVocab * kWidth, 1)), std::move(zeros));
  auto drafter = LoadDrafter(rig.files, target, rig.pool, options_.limits);
  ASSERT_TRUE(drafter);
  const Text text(12, rig.tap_width);
  (*drafter)->Begin(1, {});
  ObserveRows(**drafter, 1, 0, 5, text.tokens, text.taps, rig.tap_width);
  EXPECT_THAT(ProposeAlone(**drafter, 1, nullptr, 3).tokens, ElementsAre(0, 0, 0));
}

TEST_P(SequentialDrafterTest, ProposesNothingWhereNothingIsAskedOrKnown) {
  Rig rig(options_);
  const Text text(13, rig.tap_width);
  rig.drafter->Begin(2, {});
  EXPECT_EQ(ProposeTogether(rig, {2}, {kDrafts})[0].tokens.size(), 0u);
  ObserveText(rig, 2, text, 0, 3);
  EXPECT_EQ(ProposeTogether(rig, {2}, {0})[0].tokens.size(), 0u);
  Proposal proposal;
  ProposeRequest request{.sequence = 2, .max_tokens = 3, .proposal = &proposal, .free_only = true};
  rig.drafter->Propose({&request, 1});
  EXPECT_EQ(proposal.size(), 0);
  EXPECT_EQ(ProposeTogether(rig, {2}, {100})[0].tokens.size(), size_t(rig.drafter->max_tokens()));
}

TEST_P(SequentialDrafterTest, FilesThatDoNotFitAreErrors) {
  Rig rig(options_);
  const auto error = [&] {
    auto loaded = LoadDrafter(rig.files, rig.target, rig.pool, options_.limits);
    return loaded ? std::string() : loaded.error().text;
  };
  const char* own = GetParam() == DrafterKind::kMtp ? "nextn.hnorm.weight" : "blk.0.attn_norm_2.weight";
  for (const char* name : {"blk.0.attn_q.weight", "output_norm.weight", own}) {
    TensorShapes shapes = DrafterShapes(rig.files.config);
    shapes.erase(name);
    rig.files.weights = std::make_unique<RandomWeights>(shapes, 100);
    EXPECT_THAT(error(), HasSubstr(name));
  }
  rig.files = RandomDrafter(rig.files.config, 100);
  EXPECT_EQ(error(), "");
}

TEST(SequentialDrafterDeath, GapsAndStrangersAreBugs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Rig rig({});
  const Text text(14, rig.tap_width);
  EXPECT_DEATH(rig.drafter->End(1), "check failed");
  rig.drafter->Begin(1, {});
  EXPECT_DEATH(ObserveText(rig, 1, text, 1, 2), "check failed");
  EXPECT_DEATH(ObserveText(rig, 2, text, 0, 1), "check failed");
}

}  // namespace
}  // namespace dspark::test

// KV memory under pressure: sequences that give their blocks back and are run again, text whose beginning the
// prefix cache knows, cancels at any moment. Replies are what they are alone.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "draft/combined.h"
#include "draft/prompt_lookup.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "replies.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

DrafterConfig ConfigOf(DrafterKind kind) {
  DrafterConfig c = TinyDrafterConfig(kind);
  if (kind == DrafterKind::kBlock) {
    c.markov = MarkovHead::kVanilla;
    c.markov_rank = 32;
    c.confidence = c.confidence_with_markov = true;
  }
  return c;
}

struct Rig {
  Rig(DrafterKind kind, int sequences, int blocks, bool lookup = true)
      : model({.shape = {.layers = 10}, .blocks = blocks, .max_taps = 3}) {
    auto made = LoadDrafter(RandomDrafter(ConfigOf(kind), 5), *model.target, model.pool,
                            {.max_sequences = sequences,
                             .max_context = model.target->limits().max_context,
                             .block_tokens = 16,
                             .kv_blocks = blocks});
    if (!made) CheckFailed(__FILE__, __LINE__, made.error().text);
    drafter = std::move(made).value();
    if (!lookup) return;
    std::vector<std::unique_ptr<Drafter>> free;
    free.push_back(std::make_unique<PromptLookup>());
    drafter = std::make_unique<CombinedDrafter>(std::move(free), std::move(drafter));
  }
  TinyModel model;
  std::unique_ptr<Drafter> drafter;
};

// A few beginnings that many share.
Request SharingRequest(uint32_t seed, float temperature) {
  std::mt19937 random(seed);
  Request request;
  const int shared = int(random() % 50), kind = int(random() % 3);
  for (int i = 0; i < shared; ++i) request.prompt.push_back(int32_t(3 + (i * (kind + 2)) % 50));
  for (int i = int(random() % 20); i >= 0; --i) request.prompt.push_back(int32_t(3 + random() % 60));
  request.max_tokens = int(1 + random() % 60);
  request.seed = seed;
  request.sampling.temperature = temperature;
  request.reproducible = temperature > 0;
  request.ignore_eos = true;
  request.speculate = seed % 5 != 0;
  return request;
}

// Writes down what is proposed.
class RecordingDrafter : public Drafter {
 public:
  explicit RecordingDrafter(Drafter& inner) : inner_(inner) {}
  int max_tokens() const override { return inner_.max_tokens(); }
  std::span<const int> tap_layers() const override { return inner_.tap_layers(); }
  bool runs_model() const override { return inner_.runs_model(); }
  void Begin(SequenceId id, std::span<const int32_t> prompt) override { inner_.Begin(id, prompt); }
  void Propose(std::span<ProposeRequest> requests) override {
    inner_.Propose(requests);
    for (const ProposeRequest& r : requests) {
      tokens.push_back(r.proposal->tokens);
      confidence.push_back(r.proposal->confidence);
    }
  }
  void Observe(std::span<const ObservedRows> rows) override { inner_.Observe(rows); }
  void End(SequenceId id) override { inner_.End(id); }
  KvTable* Context(SequenceId id) override { return inner_.Context(id); }
  void Resume(SequenceId id, int rows, int32_t next) override { inner_.Resume(id, rows, next); }

  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> confidence;

 private:
  Drafter& inner_;
};

class EngineMemory : public testing::TestWithParam<DrafterKind> {};

// A pool of a quarter of what the sequences would hold together.
TEST_P(EngineMemory, RepliesAreWhatTheyAreAloneThoughBlocksRunOut) {
  constexpr int kSequences = 16, kBlocks = 20;
  Rig rig(GetParam(), kSequences, kBlocks);
  Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), rig.model.files.tokenizer.get(),
                CheapRows(),
                {.max_sequences = kSequences, .prefill_rows = 23, .fixed_draft = 3, .prefix_cache = true});
  TinyModel alone({.shape = {.layers = 10}});
  std::mt19937 random(4);
  std::map<SequenceId, Request> requests;
  std::map<SequenceId, Reply> replies;
  std::set<SequenceId> cancelled;
  constexpr uint32_t kRequests = 120;
  for (uint32_t next = 0; next < kRequests || !engine.Idle();) {
    for (; next < kRequests && random() % 3 > 0; ++next) {
      Request request = SharingRequest(next, next % 2 ? 0.8f : 0);
      requests[*engine.Submit(request)] = request;
    }
    if (random() % 8 == 0) {
      const SequenceId id = 1 + int64_t(random() % (requests.size() + 1));
      if (!replies.contains(id) || replies[id].finish == FinishReason::kNone) cancelled.insert(id);
      engine.Cancel(id);
    }
    Collect(engine.Step(), &replies);
  }
  ASSERT_EQ(replies.size(), size_t(kRequests));
  int whole = 0, drafted = 0;
  for (const auto& [id, reply] : replies) {
    const Reply plain = Plain(alone, requests[id]);
    drafted += reply.stats.drafted;
    if (reply.finish == FinishReason::kCancelled) {
      EXPECT_TRUE(cancelled.contains(id));
      ASSERT_LE(reply.tokens.size(), plain.tokens.size());
      EXPECT_TRUE(std::equal(reply.tokens.begin(), reply.tokens.end(), plain.tokens.begin()));
    } else {
      EXPECT_EQ(reply.tokens, plain.tokens) << "request " << id;
      EXPECT_EQ(reply.text, plain.text);
      ++whole;
    }
  }
  EXPECT_GT(whole, 60);
  EXPECT_GT(drafted, 100);
  EXPECT_GT(engine.load().preemptions, 10) << "blocks never ran out: the test shows nothing";
  EXPECT_EQ(engine.load().used_blocks, 0);
}

// The second turn of a chat: with its first turn in the cache the drafter knows what it would know without,
// so it proposes the same, and as much is kept.
TEST_P(EngineMemory, ProposalsAfterAHitAreThoseWithout) {
  Rig rig(GetParam(), 2, 64, /*lookup=*/false);
  Request first;
  for (int i = 0; i < 41; ++i) first.prompt.push_back(int32_t(3 + (i * 7) % 60));
  first.max_tokens = 30;
  first.ignore_eos = true;
  first.sampling.temperature = 0;
  struct Turn {
    Reply reply;
    std::vector<std::vector<int32_t>> tokens;
    std::vector<std::vector<float>> confidence;
  };
  const auto second_turn = [&](bool cached) {
    RecordingDrafter drafter(*rig.drafter);
    Engine engine(*rig.model.target, *rig.model.blocks, &drafter, nullptr, CheapRows(),
                  {.max_sequences = 2, .fixed_draft = 4, .prefix_cache = cached});
    Request second = first;
    const Reply reply = RunOne(engine, first);
    second.prompt.insert(second.prompt.end(), reply.tokens.begin(), reply.tokens.end());
    for (int i = 0; i < 9; ++i) second.prompt.push_back(int32_t(10 + i));
    second.max_tokens = 60;
    drafter.tokens.clear();
    drafter.confidence.clear();
    Turn turn{RunOne(engine, second), {}, {}};
    turn.tokens = drafter.tokens;
    turn.confidence = drafter.confidence;
    return turn;
  };
  const Turn hit = second_turn(true), miss = second_turn(false);
  EXPECT_EQ(hit.reply.stats.cached_tokens, 64);  // of 80
  EXPECT_EQ(miss.reply.stats.cached_tokens, 0);
  EXPECT_EQ(hit.reply.tokens, miss.reply.tokens);
  EXPECT_EQ(hit.tokens, miss.tokens);
  EXPECT_EQ(hit.confidence, miss.confidence);
  EXPECT_EQ(hit.reply.stats.accepted_at, miss.reply.stats.accepted_at);
  EXPECT_GT(std::set(hit.tokens.begin(), hit.tokens.end()).size(), 10u) << "proposals that never change";
}

INSTANTIATE_TEST_SUITE_P(Drafters, EngineMemory,
                         testing::Values(DrafterKind::kBlock, DrafterKind::kEagle3, DrafterKind::kMtp),
                         [](const auto& kind) {
                           return kind.param == DrafterKind::kBlock    ? "DSpark"
                                  : kind.param == DrafterKind::kEagle3 ? "Eagle3"
                                                                       : "Mtp";
                         });

// A seeded reply that must not depend on what else runs is plain decoding's, drafts or not.
TEST(Reproducible, ASampledReplyIsPlainDecodings) {
  Rig rig(DrafterKind::kBlock, 4, 64);
  Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), nullptr, {},
                {.max_sequences = 4, .fixed_draft = 4});
  std::map<SequenceId, Request> requests;
  for (uint32_t seed = 0; seed < 30; ++seed) {
    Request request = SharingRequest(seed, 0.7f);
    request.speculate = true;
    if (seed % 3 == 0) request.sampling.presence_penalty = 0.5f;
    requests[*engine.Submit(request)] = request;
  }
  int drafted = 0;
  for (const auto& [id, reply] : RunAll(engine)) {
    EXPECT_EQ(reply.tokens, Plain(rig.model, requests[id]).tokens);
    drafted += reply.stats.drafted;
  }
  EXPECT_GT(drafted, 500);
}

}  // namespace
}  // namespace dspark::test

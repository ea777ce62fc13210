// What rounds of partly wrong drafts leave behind: in penalties, in statistics, in K/V memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numbers>

#include "replies.h"

namespace dspark::test {
namespace {

// Knows the reply. Drafts that would stand at every `wrong_every`-th place of it are wrong; 0: none is.
class Oracle : public Drafter {
 public:
  Oracle(std::vector<int32_t> reply, int wrong_every) : reply_(std::move(reply)), wrong_every_(wrong_every) {}
  size_t committed = 0;  // tokens of the reply so far

  int max_tokens() const override { return 15; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    ASSERT_EQ(requests.size(), 1u);
    for (size_t k = 0; k < size_t(requests[0].max_tokens); ++k) {
      const size_t at = committed + k;
      const bool wrong = wrong_every_ > 0 && int(at) % wrong_every_ == 0;
      const int32_t token = at < reply_.size() ? reply_[at] : 0;
      requests[0].proposal->tokens.push_back(wrong ? token ^ 1 : token);
    }
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}

 private:
  std::vector<int32_t> reply_;
  int wrong_every_;
};

// `after_step` sees the tokens committed so far.
Reply RunWithOracle(
    TinyModel& model, const Request& request, Oracle oracle, int draft = 15,
    const std::function<void(size_t)>& after_step = [](size_t) {}) {
  Engine engine(*model.target, *model.blocks, &oracle, model.files.tokenizer.get(), {},
                {.fixed_draft = draft});
  const auto id = engine.Submit(request);
  EXPECT_TRUE(id.ok());
  std::map<SequenceId, Reply> replies;
  while (!engine.Idle()) {
    Collect(engine.Step(), &replies);
    oracle.committed = replies[*id].tokens.size();
    if (!engine.Idle()) after_step(oracle.committed);
  }
  return replies[*id];
}

Request MakeRequest(int max_tokens, uint64_t seed = 0) {
  Request request;
  request.prompt = {20, 21, 22, 20, 21};
  request.sampling.temperature = 0;
  request.seed = seed;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

// A draft counts in the rows behind it, and once it is committed it counts once.
TEST(EngineRounds, PenaltiesSeeExactlyTheText) {
  TinyModel model;
  int accepted = 0, rejected = 0;
  for (const float temperature : {0.0f, 0.8f}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      Request request = MakeRequest(60, seed);
      request.sampling = {.temperature = temperature,
                          .repetition_penalty = 1.3f,
                          .frequency_penalty = 1.0f,
                          .logit_bias = {{40, 4.0f}, {41, 4.0f}, {42, 4.0f}}};
      const Reply plain = Plain(model, request);
      const Reply reply = RunWithOracle(model, request, Oracle(plain.tokens, 5));
      EXPECT_EQ(reply.tokens, plain.tokens) << "temperature " << temperature << " seed " << seed;
      accepted += reply.stats.accepted;
      rejected += reply.stats.drafted - reply.stats.accepted;
    }
  }
  EXPECT_GT(accepted, 100) << "too few for the comparison to mean anything";
  EXPECT_GT(rejected, 100);
}

// The first token comes with the prompt; blocks of 7 drafts and a bonus follow.
TEST(EngineRounds, TauCountsCommittedTokensOnly) {
  TinyModel model;
  const Reply whole = Plain(model, MakeRequest(40));
  for (const int max_tokens : {2, 9, 10, 17, 20, 24, 40}) {
    const Reply reply = RunWithOracle(model, MakeRequest(max_tokens), Oracle(whole.tokens, 0), 7);
    const int committed = max_tokens - 1, rounds = (committed + 7) / 8;
    EXPECT_EQ(reply.stats.committed, committed);
    EXPECT_EQ(reply.stats.rounds, rounds);
    EXPECT_DOUBLE_EQ(reply.stats.Tau(), double(committed) / rounds);
  }
  int inside = 0;
  for (int at = 1; at < 40; ++at) {
    const int32_t token = whole.tokens[at];
    if (std::ranges::find(whole.tokens, token) - whole.tokens.begin() != at) continue;
    Request request = MakeRequest(40);
    request.stop_tokens = {token};
    const Reply reply = RunWithOracle(model, request, Oracle(whole.tokens, 0), 7);
    ASSERT_EQ(reply.finish, FinishReason::kStop);
    EXPECT_EQ(reply.stats.committed, at);
    EXPECT_DOUBLE_EQ(reply.stats.Tau(), double(at) / ((at + 7) / 8)) << "stopped at token " << at;
    inside += at % 8 != 0;
  }
  EXPECT_GT(inside, 2) << "no reply ended inside a block";
}

// Two right drafts a block and a wrong one behind them. The fourth block has room for three, the fifth for
// none.
TEST(EngineRounds, StatisticsCountByPlaceInTheBlock) {
  TinyModel model;
  const Reply whole = Plain(model, MakeRequest(14));
  const SequenceStats stats = RunWithOracle(model, MakeRequest(14), Oracle(whole.tokens, 3), 4).stats;
  EXPECT_EQ(stats.rounds, 5);
  EXPECT_EQ(stats.verified_at, (std::vector<int>{4, 4, 4, 3}));
  EXPECT_EQ(stats.reached_at, (std::vector<int>{4, 4, 4, 0}));
  EXPECT_EQ(stats.accepted_at, (std::vector<int>{4, 4, 0, 0}));
  EXPECT_EQ(stats.drafted, 15);
  EXPECT_EQ(stats.accepted, 8);
}

TEST(EngineRounds, NoDraftIsVerifiedForTheLastToken) {
  TinyModel model;
  const Reply whole = Plain(model, MakeRequest(17));
  for (int max_tokens = 1; max_tokens <= 17; ++max_tokens) {
    const Reply reply = RunWithOracle(model, MakeRequest(max_tokens), Oracle(whole.tokens, 0));
    EXPECT_EQ(int(reply.tokens.size()), max_tokens);
    EXPECT_EQ(reply.stats.drafted, std::max(0, max_tokens - 2)) << "the last one is the bonus";
    EXPECT_EQ(reply.stats.accepted, reply.stats.drafted);
  }
}

TEST(EngineRounds, RejectedRowsGiveTheirBlocksBack) {
  TinyModel model;
  const int block = model.blocks->layout().block_tokens;
  for (const int wrong_every : {1, 3, 7}) {
    const Request request = MakeRequest(80);
    const Reply plain = Plain(model, request);
    int steps = 0;
    RunWithOracle(model, request, Oracle(plain.tokens, wrong_every), 15, [&](size_t committed) {
      const int held = int(request.prompt.size() + committed) - 1;  // K/V of all tokens but the newest
      EXPECT_EQ(model.blocks->blocks() - model.blocks->free_blocks(), (held + block - 1) / block);
      ++steps;
    });
    EXPECT_GT(steps, 80 / (wrong_every + 1));
    EXPECT_EQ(model.blocks->free_blocks(), model.blocks->blocks());
  }
}

// Draws drafts between two tokens, the second twice as often at kHot.
class Pair : public Drafter {
 public:
  static constexpr std::array<int32_t, 2> kTokens = {16, 17};
  static constexpr float kHot = 20;
  int max_tokens() const override { return 12; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      for (int k = 0; k < request.max_tokens; ++k) {
        std::array<float, 2> logits = {0, kHot * std::numbers::ln2_v<float>};
        request.sampler->Draw(kTokens, logits, request.proposal);
      }
    }
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}
};

// The target takes both about equally often. Of twelve such drafts whole blocks keep half as many again as
// tokens one by one, in the mean.
TEST(EngineRounds, BlockVerificationKeepsMoreDrafts) {
  TinyModel model;
  int rounds[2] = {};
  for (const bool blocks : {false, true}) {
    Pair drafter;
    Engine engine(*model.target, *model.blocks, &drafter, nullptr, {},
                  {.fixed_draft = 12, .accept_blocks = blocks});
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Request request = MakeRequest(100, seed);
      request.sampling = {.temperature = Pair::kHot, .top_k = 2};
      for (const int32_t token : Pair::kTokens) request.sampling.logit_bias.push_back({token, 100.0f});
      rounds[blocks] += RunOne(engine, request).stats.rounds;
    }
  }
  EXPECT_LT(rounds[true], 0.85 * rounds[false]);
}

}  // namespace
}  // namespace dspark::test

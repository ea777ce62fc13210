// The engine on the seeded tiny model: replies depend on nothing but the request.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <set>

#include "chi_square.h"
#include "draft/prompt_lookup.h"
#include "replies.h"
#include "sanitized.h"
#include "tiny_model.h"

namespace dspark::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Request RandomRequest(uint32_t seed, int vocab) {
  std::mt19937 random(seed);
  Request request;
  request.prompt.resize(1 + random() % 60);
  // Few different tokens, so that prompt look-up finds something.
  for (auto& token : request.prompt) token = int32_t(3 + random() % 6);
  request.prompt[0] = int32_t(random() % uint32_t(vocab));
  request.max_tokens = int(1 + random() % 50);
  request.seed = seed;
  request.sampling.temperature = 0;
  request.ignore_eos = true;
  if (seed % 3 == 1) request.sampling = {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f};
  if (seed % 3 == 2) {
    request.sampling = {.temperature = 0.7f,
                        .min_p = 0.02f,
                        .repetition_penalty = 1.2f,
                        .presence_penalty = 0.3f,
                        .frequency_penalty = 0.2f,
                        .logit_bias = {{5, 1.5f}}};
  }
  return request;
}

// Proposes anything: right tokens for a while, then wrong ones; the model's text when it is told it.
class ScriptedDrafter : public Drafter {
 public:
  enum class Kind { kRandom, kOracle, kSampled };
  ScriptedDrafter(Kind kind, int vocab) : kind_(kind), vocab_(vocab) {}
  void Tell(SequenceId id, std::vector<int32_t> reply) { oracle_[id] = std::move(reply); }

  // What sampled drafts are drawn from.
  void DrawFrom(const std::vector<int32_t>& ids) { candidates_ = std::set<int32_t>(ids.begin(), ids.end()); }

  void TellConfidence(bool tell) { tell_confidence_ = tell; }

  int max_tokens() const override { return 15; }
  void Begin(SequenceId id, std::span<const int32_t> prompt) override { state_[id] = {prompt.size(), 0}; }
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& r : requests) {
      EXPECT_EQ(r.proposal->size(), 0);
      for (int k = 0; k < r.max_tokens; ++k) Draft(r.sequence, k, r.proposal);
    }
  }
  void Observe(std::span<const ObservedRows> rows) override {
    for (const ObservedRows& r : rows) state_[r.sequence].generated += size_t(r.committed);
  }
  void End(SequenceId id) override { EXPECT_EQ(state_.erase(id), 1u); }
  size_t open() const { return state_.size(); }

 private:
  struct State {
    size_t prompt = 0, generated = 0;
  };

  void Draft(SequenceId id, int k, Proposal* proposal) {
    const auto& script = oracle_[id];
    const size_t at = state_[id].generated + k;
    if (kind_ == Kind::kOracle && at < script.size() && random_() % 8 != 0) {
      proposal->tokens.push_back(script[at]);
    } else if (kind_ == Kind::kSampled) {
      // Drawn from q: a few tokens the target likes too, with weights of their own.
      const std::vector<int32_t> ids(candidates_.begin(), candidates_.end());
      std::vector<float> probs;
      for (const int32_t token : ids) probs.push_back(float(1 + token % 3));
      const float sum = std::accumulate(probs.begin(), probs.end(), 0.0f);
      for (float& p : probs) p /= sum;
      std::discrete_distribution<size_t> draw(probs.begin(), probs.end());
      if (tell_confidence_) {
        const bool before = k > 0 && proposal->tokens.back() % 2 == 0;
        proposal->confidence.push_back(k == 0 ? 0.8f : before ? 0.95f : 0.2f);
      }
      proposal->Add(ids[draw(random_)], {ids, probs});
    } else {
      proposal->tokens.push_back(int32_t(random_() % uint32_t(vocab_)));
    }
  }

  Kind kind_;
  int vocab_;
  std::mt19937 random_{7};
  std::set<int32_t> candidates_;
  bool tell_confidence_ = false;
  std::map<SequenceId, std::vector<int32_t>> oracle_;
  std::map<SequenceId, State> state_;
};

TEST(Engine, OneHotDraftsLeaveEveryReplyAsItIs) {
  TinyModel model;
  for (const auto kind : {ScriptedDrafter::Kind::kRandom, ScriptedDrafter::Kind::kOracle}) {
    for (const int fixed : {-1, 0, 1, 3, 7, 15}) {
      ScriptedDrafter drafter(kind, model.vocab());
      Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), CheapRows(),
                    {.fixed_draft = fixed});
      for (uint32_t seed = 0; seed < 9; ++seed) {
        const Request request = RandomRequest(seed, model.vocab());
        const Reply plain = Plain(model, request);
        const auto id = engine.Submit(request);
        ASSERT_TRUE(id.ok());
        drafter.Tell(*id, plain.tokens);
        const Reply reply = RunAll(engine)[*id];
        EXPECT_EQ(reply.tokens, plain.tokens) << "seed " << seed << " fixed " << fixed;
        EXPECT_EQ(reply.text, plain.text);
        EXPECT_EQ(reply.finish, plain.finish);
        if (kind == ScriptedDrafter::Kind::kOracle && fixed == 7 && request.max_tokens > 20) {
          EXPECT_GT(reply.stats.Tau(), 2.0) << "the oracle's drafts should be kept";
        }
      }
      EXPECT_EQ(drafter.open(), 0u);
      EXPECT_EQ(model.blocks->free_blocks(), model.blocks->blocks());
    }
  }
}

TEST(Engine, PromptLookupLeavesEveryReplyAsItIs) {
  TinyModel model;
  PromptLookup drafter;
  Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), CheapRows(), {});
  int accepted = 0;
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const Request request = RandomRequest(seed, model.vocab());
    const Reply plain = Plain(model, request), reply = RunOne(engine, request);
    EXPECT_EQ(reply.tokens, plain.tokens) << "seed " << seed;
    accepted += reply.stats.accepted;
  }
  EXPECT_GT(accepted, 0) << "no draft was ever kept: the test shows nothing";
}

TEST(Engine, RepliesDoNotDependOnCompany) {
  TinyModel model;
  std::vector<Request> requests;
  std::vector<Reply> alone;
  for (uint32_t seed = 0; seed < 24; ++seed) {
    requests.push_back(RandomRequest(seed, model.vocab()));
    alone.push_back(Plain(model, requests.back()));
  }
  // Fewer places and blocks than requests, small prefill chunks, joining at random steps, verified side by
  // side.
  TinyModelOptions tight;
  tight.blocks = 20;
  TinyModel small(tight);
  PromptLookup drafter;
  Engine engine(*small.target, *small.blocks, &drafter, small.files.tokenizer.get(), CheapRows(),
                {.max_sequences = 5, .prefill_rows = 7, .pool = &small.pool});
  std::mt19937 random(3);
  std::map<SequenceId, Reply> replies;
  std::map<SequenceId, size_t> index;
  size_t next = 0;
  while (next < requests.size() || !engine.Idle()) {
    while (next < requests.size() && random() % 3 == 0) {
      const auto id = engine.Submit(requests[next]);
      ASSERT_TRUE(id.ok()) << id.error().text;
      index[*id] = next++;
    }
    Collect(engine.Step(), &replies);
  }
  ASSERT_EQ(replies.size(), requests.size());
  for (const auto& [id, reply] : replies) {
    EXPECT_EQ(reply.tokens, alone[index[id]].tokens) << "request " << index[id];
    EXPECT_EQ(reply.text, alone[index[id]].text);
  }
  EXPECT_EQ(small.blocks->free_blocks(), small.blocks->blocks());
}

// Counts the rows that are run.
class CountingTarget : public Target {
 public:
  explicit CountingTarget(Target& inner) : inner_(inner) {}
  const ModelConfig& config() const override { return inner_.config(); }
  const TargetLimits& limits() const override { return inner_.limits(); }
  KvLayout kv_layout() const override { return inner_.kv_layout(); }
  TargetMemory memory() const override { return inner_.memory(); }
  const PackedMatrix& embedding() const override { return inner_.embedding(); }
  const PackedMatrix& head() const override { return inner_.head(); }
  Isa isa() const override { return inner_.isa(); }
  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override {
    for (const Segment& segment : segments) rows += int(segment.tokens.size());
    return inner_.Forward(segments, tap_layers);
  }
  int rows = 0;

 private:
  Target& inner_;
};

// Beginnings of every length that blocks can be cut at, identical prompts, and source sequences in the midst
// of their prompts.
TEST(Engine, SharedPromptsAreReadOnceAndChangeNothing) {
  TinyModel model;
  std::mt19937 random(5);
  std::vector<int32_t> common(60);
  for (auto& token : common) token = int32_t(3 + random() % 200);
  std::vector<Request> requests;
  std::vector<Reply> alone;
  int rows_alone = 0;
  for (uint32_t seed = 0; seed < 24; ++seed) {
    Request request = RandomRequest(seed, model.vocab());
    const size_t shared = seed % 6 == 0 ? common.size() : 5 + random() % 55;
    const size_t own = seed % 6 == 0 ? 0 : random() % 20;
    request.prompt.assign(common.begin(), common.begin() + ptrdiff_t(shared));
    for (size_t i = 0; i < own; ++i) request.prompt.push_back(int32_t(3 + random() % 200));
    requests.push_back(request);
    alone.push_back(Plain(model, request));
    rows_alone += int(request.prompt.size() + alone.back().tokens.size()) - 1;
  }
  CountingTarget target(*model.target);
  PromptLookup drafter;
  Engine engine(target, *model.blocks, &drafter, model.files.tokenizer.get(), DearRows(),
                {.max_sequences = 6, .prefill_rows = 40, .prefix_cache = true});
  std::map<SequenceId, Reply> replies;
  std::map<SequenceId, size_t> index;
  size_t next = 0;
  while (next < requests.size() || !engine.Idle()) {
    if (next < requests.size()) {
      const auto id = engine.Submit(requests[next]);
      ASSERT_TRUE(id.ok()) << id.error().text;
      index[*id] = next++;
    }
    Collect(engine.Step(), &replies);
  }
  ASSERT_EQ(replies.size(), requests.size());
  for (const auto& [id, reply] : replies) {
    EXPECT_EQ(reply.tokens, alone[index[id]].tokens) << "request " << index[id];
    EXPECT_EQ(reply.stats.prompt_tokens, int(requests[index[id]].prompt.size()));
  }
  EXPECT_LT(target.rows, rows_alone - 300);
  EXPECT_EQ(engine.load().used_blocks, 0);
  EXPECT_GT(engine.load().cached_blocks, 0);
}

TEST(Engine, DraftsAreParkedWhereRowsAreDear) {
  TinyModel model;
  PromptLookup drafter;
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, DearRows(), {});
  Request request = RandomRequest(0, model.vocab());
  request.max_tokens = 50;
  EXPECT_EQ(RunOne(engine, request).stats.drafted, 0);
}

TEST(Engine, FixedDraftsStayWithinOnePass) {
  TinyModelOptions options;
  options.max_rows = 40;
  options.blocks = 512;
  TinyModel model(options);
  ScriptedDrafter drafter(ScriptedDrafter::Kind::kRandom, model.vocab());
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, {},
                {.max_sequences = 16, .fixed_draft = 15});
  std::map<SequenceId, Request> requests;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const Request request = RandomRequest(seed, model.vocab());
    requests[*engine.Submit(request)] = request;
  }
  for (const auto& [id, reply] : RunAll(engine)) EXPECT_EQ(reply.tokens, Plain(model, requests[id]).tokens);
}

struct SampledMode {
  const char* name;
  EngineOptions options;
  CostTable costs;
  bool confidence;  // drafts come with a c that tells what was drawn before them
};

class SampledDrafts : public testing::TestWithParam<SampledMode> {};

// Sampled drafts through the whole engine: the joint distribution of the reply's first two tokens against the
// exact one.
TEST_P(SampledDrafts, KeepTheDistribution) {
  TinyModel model;
  Request request;
  request.prompt = {10, 40, 77, 12};
  request.max_tokens = 4;
  request.ignore_eos = true;
  request.sampling = {.temperature = 1.5f, .top_k = 3};
  std::map<std::pair<int32_t, int32_t>, size_t> category;
  std::vector<double> exact;
  std::vector<int32_t> likely;
  const Distribution first = ServedAfter(model, request.prompt, request.sampling);
  for (size_t i = 0; i < first.ids.size(); ++i) {
    auto text = request.prompt;
    text.push_back(first.ids[i]);
    const Distribution second = ServedAfter(model, text, request.sampling);
    for (size_t j = 0; j < second.ids.size(); ++j) {
      category[{first.ids[i], second.ids[j]}] = exact.size();
      exact.push_back(double(first.probs[i]) * second.probs[j]);
      likely.push_back(second.ids[j]);
    }
  }
  likely.insert(likely.end(), first.ids.begin(), first.ids.end());

  ScriptedDrafter drafter(ScriptedDrafter::Kind::kSampled, model.vocab());
  drafter.DrawFrom(likely);
  drafter.TellConfidence(GetParam().confidence);
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, GetParam().costs, GetParam().options);
  std::vector<int64_t> counts(exact.size());
  int accepted = 0;
  constexpr int kDraws = kSanitized ? 1500 : 6000;
  for (int i = 0; i < kDraws; ++i) {
    request.seed = uint64_t(i);
    ASSERT_TRUE(engine.Submit(request).ok());
  }
  for (const auto& [id, reply] : RunAll(engine)) {
    const auto found = category.find({reply.tokens[0], reply.tokens[1]});
    ASSERT_NE(found, category.end()) << "a token that truncation had removed";
    ++counts[found->second];
    accepted += reply.stats.accepted;
  }
  EXPECT_GT(ChiSquarePValue(counts, exact), 1e-4);
  EXPECT_GT(accepted, kDraws / 40) << "too few drafts were kept for the comparison to mean anything";
}

INSTANTIATE_TEST_SUITE_P(
    All, SampledDrafts,
    testing::Values(SampledMode{"Blocks", {.fixed_draft = 2}, {}, false},
                    SampledMode{"TokenWise", {.fixed_draft = 2, .accept_blocks = false}, {}, false},
                    SampledMode{"Threshold", {.threshold = 0.5f}, {}, true},
                    SampledMode{"Cumulative", {.threshold = 0.5f, .threshold_cumulative = true}, {}, true},
                    SampledMode{"Adaptive",
                                {.max_sequences = 1, .follow_costs = false},
                                CostTable({{1, 1}, {2, 1.05}, {3, 1.06}, {64, 2}}),
                                true}),
    [](const auto& mode) { return std::string(mode.param.name); });

TEST(Engine, EndsInsideAnAcceptedBlock) {
  TinyModel model;
  Request request = RandomRequest(0, model.vocab());
  request.max_tokens = 40;
  const Reply whole = Plain(model, request);
  ASSERT_EQ(whole.finish, FinishReason::kLength);
  ASSERT_EQ(whole.tokens.size(), 40u);
  for (const int at : {1, 2, 5, 9, 20}) {
    Request cut = request;
    cut.stop_tokens = {whole.tokens[at]};
    const Reply plain = Plain(model, cut);
    ScriptedDrafter drafter(ScriptedDrafter::Kind::kOracle, model.vocab());
    Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), {},
                  {.fixed_draft = 15});
    const auto id = engine.Submit(cut);
    drafter.Tell(*id, whole.tokens);
    const Reply reply = RunAll(engine)[*id];
    EXPECT_EQ(reply.finish, FinishReason::kStop);
    EXPECT_EQ(reply.tokens, plain.tokens);
    EXPECT_EQ(reply.tokens.back(), whole.tokens[at]);
    EXPECT_EQ(reply.stats.completion_tokens, int(reply.tokens.size()));
    EXPECT_LE(reply.stats.accepted, reply.stats.drafted);
  }
}

TEST(Engine, MaxTokensAndContextEnd) {
  TinyModel model;
  PromptLookup drafter;
  for (const int max_tokens : {1, 2, 3, 17, 1000}) {
    Engine engine(*model.target, *model.blocks, &drafter, nullptr, CheapRows(), {});
    Request request = RandomRequest(0, model.vocab());
    request.max_tokens = max_tokens;
    const Reply reply = RunOne(engine, request);
    const int room = model.target->limits().max_context - int(request.prompt.size());
    EXPECT_EQ(int(reply.tokens.size()), std::min(max_tokens, room));
    EXPECT_EQ(reply.finish, FinishReason::kLength);
  }
}

TEST(Engine, StopStringsEndTheTextBeforeThem) {
  TinyModel model;
  Request request = RandomRequest(0, model.vocab());
  request.max_tokens = 40;
  const Reply whole = Plain(model, request);
  ASSERT_GT(whole.text.size(), 12u);
  request.stop = {"\x01never\x01", whole.text.substr(5, 4)};
  const Reply cut = Plain(model, request);
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.stop[1])));
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());
}

TEST(Engine, LogprobsAreTheModelsOwn) {
  TinyModel model;
  Request request =
      RandomRequest(2, model.vocab());  // penalties and bias, which log-probabilities must not show
  request.max_tokens = 12;
  request.top_logprobs = 3;
  PromptLookup drafter;
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, CheapRows(), {});
  const Reply reply = RunOne(engine, request);
  ASSERT_EQ(reply.events.size(), 12u);

  KvTable kv(*model.blocks);
  std::vector<int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), reply.tokens.begin(), reply.tokens.end());
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    ASSERT_TRUE(kv.Reserve(int(i) + 1));
    const Segment segment{.tokens = {&tokens[i], 1}, .position = int(i), .kv = &kv};
    const float* logits = model.target->Forward({&segment, 1}, {}).logits;
    if (i + 1 < request.prompt.size()) continue;
    double sum = 0;
    for (int v = 0; v < model.vocab(); ++v) sum += std::exp(double(logits[v]));
    const TokenEvent& event = reply.events[i + 1 - request.prompt.size()];
    EXPECT_NEAR(event.logprob.logprob, logits[tokens[i + 1]] - std::log(sum), 1e-4);
    ASSERT_EQ(event.top.size(), 3u);
    EXPECT_NEAR(event.top[0].logprob, *std::max_element(logits, logits + model.vocab()) - std::log(sum),
                1e-4);
    EXPECT_GE(event.top[0].logprob, event.top[1].logprob);
  }
}

TEST(Engine, CancelEndsOneAndLeavesTheOthers) {
  TinyModel model;
  Engine engine(*model.target, *model.blocks, nullptr, nullptr, {}, {.max_sequences = 2});
  std::vector<SequenceId> ids;
  for (uint32_t seed : {0u, 3u, 6u}) {
    Request request = RandomRequest(seed, model.vocab());
    request.max_tokens = 30;
    ids.push_back(*engine.Submit(request));
  }
  std::map<SequenceId, Reply> replies;
  for (int i = 0; i < 5; ++i) Collect(engine.Step(), &replies);
  engine.Cancel(ids[0]);
  engine.Cancel(ids[2]);  // still waiting
  engine.Cancel(12345);
  while (!engine.Idle()) Collect(engine.Step(), &replies);
  EXPECT_EQ(replies[ids[0]].finish, FinishReason::kCancelled);
  EXPECT_EQ(replies[ids[2]].finish, FinishReason::kCancelled);
  EXPECT_TRUE(replies[ids[2]].tokens.empty());
  EXPECT_EQ(replies[ids[1]].tokens.size(), 30u);
  EXPECT_EQ(model.blocks->free_blocks(), model.blocks->blocks());
}

TEST(Engine, BadRequestsAreErrorsThatNameTheFault) {
  TinyModel model;
  Engine engine(*model.target, *model.blocks, nullptr, nullptr, {}, {});
  const auto fault = [&](auto change) {
    Request request = RandomRequest(0, model.vocab());
    change(request);
    const auto id = engine.Submit(std::move(request));
    return id.ok() ? std::string("accepted") : id.error().text;
  };
  EXPECT_THAT(fault([](Request& r) { r.prompt.clear(); }), HasSubstr("no tokens"));
  EXPECT_THAT(fault([](Request& r) { r.prompt.assign(256, 3); }), HasSubstr("context holds 256"));
  EXPECT_THAT(fault([](Request& r) { r.prompt = {1, -4}; }), HasSubstr("prompt token 1 is -4"));
  EXPECT_THAT(fault([](Request& r) { r.max_tokens = 0; }), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(fault([](Request& r) { r.sampling.temperature = -1; }), HasSubstr("temperature"));
  EXPECT_THAT(fault([](Request& r) { r.stop = {"x"}; }), HasSubstr("tokenizer"));
  EXPECT_TRUE(engine.Idle());
}

}  // namespace
}  // namespace dspark::test

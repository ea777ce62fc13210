#include "eval/rollout.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/rng.h"
#include "draft/prompt_lookup.h"
#include "draft/registry.h"
#include "eval/evaluate.h"
#include "golden_tensors.h"
#include "test_data.h"
#include "tiny_model.h"

namespace dspark::test {
namespace {

using Json = nlohmann::json;

template <class T>
T Must(Result<T> result) {
  if (!result) CheckFailed(__FILE__, __LINE__, result.error().text);
  return std::move(result).value();
}

// The golden run that ends with an accepted stop token, through the engine: every round as it was recorded,
// the last one cut behind that token, and with a threshold all confidences of the block.
class GoldenRounds : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters/infer_dspark_vanilla.json"); }

  RoundLog Run(const Request& request, EngineOptions options, std::vector<int32_t>* tokens) {
    const std::string golden = GoldenDir() + "/drafters/";
    const ModelFiles files = Must(OpenModel(golden + "target_qwen3"));
    ThreadPool pool(2);
    const auto target = Must(LoadTarget(
        files, pool, {.max_logit_rows = 16, .max_context = 256, .max_taps = 8, .kv_type = KvType::kF32}));
    BlockPool blocks(target->kv_layout(), 8);
    const auto drafter = Must(LoadDrafter(Must(OpenDrafter(golden + GetParam())), *target, pool,
                                          {.max_context = 256, .kv_type = KvType::kF32}));
    RoundLog log;
    options.observer = &log;
    Engine engine(*target, blocks, drafter.get(), nullptr, {}, options);
    EXPECT_TRUE(engine.Submit(request).ok());
    while (!engine.Idle()) {
      for (const TokenEvent& event : engine.Step()) tokens->push_back(event.token);
    }
    return log;
  }
};

TEST_P(GoldenRounds, AreWhatWasRecorded) {
  const GoldenTensors golden(GoldenDir() + "/drafters/infer_" + GetParam() + ".safetensors");
  const Json run =
      Json::parse(std::ifstream(GoldenDir() + "/drafters/infer_" + GetParam() + ".json"))["stop"];
  const std::vector<int32_t> text = golden.Ints("stop.output_ids");
  const int reply = run["new_tokens"];
  Request request;
  request.prompt.assign(text.begin(), text.end() - reply);
  request.sampling.temperature = 0;
  request.stop_tokens = {510, 508};
  request.max_tokens = 150;
  std::vector<int32_t> tokens;
  const RoundLog log = Run(request, {.fixed_draft = 7}, &tokens);
  EXPECT_EQ(tokens, std::vector<int32_t>(text.end() - reply, text.end()));
  AcceptanceStats expected;
  for (size_t r = 0; r < run["rounds"]; ++r)
    expected.Add(run["proposal_lengths"][r], run["accepted_draft_lengths"][r], run["acceptance_lengths"][r]);
  EXPECT_EQ(log.acceptance().committed, expected.committed);
  EXPECT_EQ(log.acceptance().verified_at, expected.verified_at);
  EXPECT_EQ(log.acceptance().reached_at, expected.reached_at);
  EXPECT_EQ(log.acceptance().accepted_at, expected.accepted_at);
  if (GetParam() != "dspark_vanilla") return;
  const std::vector<float> logits = golden.Floats("stop.confidence");
  for (const float threshold : {0.0f, 0.5f}) {
    tokens.clear();
    const RoundLog cut =
        threshold == 0 ? log : Run(request, {.max_draft = 7, .threshold = threshold}, &tokens);
    ASSERT_FALSE(cut.confidence().empty());
    const ConfidenceRound& first = cut.confidence().front();
    ASSERT_EQ(first.logits.size(), 7u);  // of the whole block, whatever was verified of it
    for (size_t k = 0; k < 7; ++k) EXPECT_NEAR(first.logits[k], logits[k], 1e-4) << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Drafters, GoldenRounds, testing::Values("dspark_vanilla", "dflash"),
                         [](const auto& drafter) { return drafter.param; });

TEST(RoundLog, UndoesTemperatures) {
  RoundLog log({2, 0.5f});
  const std::vector<float> confidence{0.5f, 0.8807971f};
  log.OnRound({.sequence = 1, .drafted = 2, .accepted = 1, .committed = 2, .confidence = confidence});
  log.OnRound({.sequence = 1, .drafted = 0, .accepted = 0, .committed = 1, .confidence = confidence});
  log.OnRound({.sequence = 1, .drafted = 2, .accepted = 2, .committed = 3, .confidence = {}});
  ASSERT_EQ(log.confidence().size(), 1u);
  EXPECT_NEAR(log.confidence()[0].logits[0], 0, 1e-6);
  EXPECT_NEAR(log.confidence()[0].logits[1], 1, 1e-5);
  EXPECT_EQ(log.without_confidence().rounds, 2);
  EXPECT_EQ(log.without_confidence().committed, 4);
  EXPECT_EQ(log.acceptance().rounds, 3);
  EXPECT_EQ(log.acceptance().committed, 6);
}

TEST(RoundLog, TellsLookupApart) {
  RoundLog log;
  log.OnRound({.sequence = 1, .drafted = 2, .accepted = 1, .committed = 2, .confidence = {}});
  log.OnRound({.sequence = 1,
               .drafted = 4,
               .accepted = 4,
               .committed = 5,
               .origin = DraftOrigin::kLookup,
               .match_length = 3,
               .confidence = {}});
  EXPECT_EQ(log.acceptance().rounds, 2);
  EXPECT_EQ(log.acceptance().committed, 7);
  EXPECT_EQ(log.looked_up().rounds, 1);
  EXPECT_EQ(log.looked_up().committed, 5);
}

struct TinyEval {
  TinyEval()
      : setting{.target = *model.target,
                .blocks = *model.blocks,
                .tokenizer = model.files.tokenizer.get(),
                .encoder = Must(ChatEncoder::Make(model.files)),
                .costs = CheapRows(),
                .rollout = {.max_tokens = 24}} {}
  TinyModel model;
  EvalSetting setting;
};

const Suite kTalk{"talk",
                  "chat",
                  {{"", {"one two one two one two"}}, {"be brief", {"a b a b", "again"}}, {"", {"x x x x"}}}};

TEST(Rollouts, TurnsBecomeHistoryAndTogetherIsTheSame) {
  TinyEval eval;
  std::vector<std::vector<std::vector<int32_t>>> answers[2];
  for (const int together : {1, 3}) {
    Engine engine(eval.setting.target, eval.setting.blocks, nullptr, eval.setting.tokenizer, {},
                  {.max_sequences = together});
    for (size_t first = 0; first < 3; first += size_t(together)) {
      const GroupRun run = Must(RunGroup(engine, eval.setting.encoder, 256,
                                         std::span(kTalk.prompts).subspan(first, size_t(together)), first,
                                         eval.setting.rollout));
      EXPECT_GT(run.tokens, 0);
      EXPECT_GT(run.ms, 0);
      int64_t behind_the_first = 0;
      for (const Rollout& rollout : run.rollouts) {
        answers[together / 3].push_back(rollout.answers);
        for (const auto& answer : rollout.answers) behind_the_first += int64_t(answer.size()) - 1;
      }
      EXPECT_EQ(run.tokens, behind_the_first);
    }
  }
  EXPECT_EQ(answers[0], answers[1]);
  ASSERT_EQ(answers[0][1].size(), 2u);
  EXPECT_FALSE(answers[0][1][1].empty());
}

TEST(Rollouts, EveryPromptHasItsOwnSeed) {
  TinyEval eval;
  eval.setting.rollout.sampling.temperature = 2;
  const std::vector<EvalPrompt> same(2, kTalk.prompts[0]);
  Engine engine(eval.setting.target, eval.setting.blocks, nullptr, eval.setting.tokenizer, {},
                {.max_sequences = 2});
  const GroupRun run = Must(RunGroup(engine, eval.setting.encoder, 256, same, 0, eval.setting.rollout));
  EXPECT_NE(run.rollouts[0].answers, run.rollouts[1].answers);
}

TEST(Rollouts, AConversationTheContextDoesNotHoldIsCut) {
  TinyEval eval;
  Engine engine(eval.setting.target, eval.setting.blocks, nullptr, eval.setting.tokenizer, {}, {});
  const GroupRun run = Must(RunGroup(engine, eval.setting.encoder, 60, std::span(kTalk.prompts).subspan(1, 1),
                                     0, eval.setting.rollout));
  EXPECT_TRUE(run.rollouts[0].cut);
  EXPECT_EQ(run.rollouts[0].answers.size(), 1u);
}

// Always wrong: greedy answers stay, and every round gives one token.
class WrongDrafter : public Drafter {
 public:
  int max_tokens() const override { return 3; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& r : requests) r.proposal->tokens.assign(size_t(std::min(r.max_tokens, 3)), 5);
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}
};

TEST(EvaluateSuite, OneResultForEachCandidate) {
  TinyEval eval;
  PromptLookup lookup;
  WrongDrafter wrong;
  const std::vector<Candidate> candidates{
      {&lookup, {.kind = "prompt lookup", .temperatures = {}}, {}},
      {&wrong, {.kind = "wrong", .temperatures = {}}, {.fixed_draft = 3}}};
  std::vector<int> progress;
  const auto results =
      Must(EvaluateSuite(eval.setting, kTalk, candidates, [&](int done) { progress.push_back(done); }));
  EXPECT_EQ(progress, (std::vector<int>{1, 2, 3}));
  ASSERT_EQ(results.size(), 2u);
  for (const SuiteResult& result : results) {
    EXPECT_EQ(result.different, 0);
    EXPECT_EQ(result.prompts, 3);
    EXPECT_EQ(result.answers, 4);
    EXPECT_EQ(result.ratios.size(), 3u);
    EXPECT_GT(result.plain.Rate(), 0);
    EXPECT_GT(result.speculative.Rate(), 0);
  }
  EXPECT_GT(results[0].whole.Tau(), 1.0);
  EXPECT_LT(results[1].whole.Tau(), 1.2);
  EXPECT_GT(results[1].whole.DraftsPerRound(), 2);
}

// Not sure of any draft, and slow where it drafts more than one.
class SlowDrafter : public WrongDrafter {
 public:
  void Propose(std::span<ProposeRequest> requests) override {
    WrongDrafter::Propose(requests);
    bool slow = false;
    for (const ProposeRequest& r : requests) {
      r.proposal->confidence.assign(r.proposal->tokens.size(), 0.1f);
      slow = slow || r.proposal->size() > 1;
    }
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  }
};

TEST(EvaluateSuite, WholeBlocksForgetThePolicyAndSpeedIsThatOfTheServedLane) {
  TinyEval eval;
  eval.setting.rollout.max_tokens = 12;
  const Suite one{"one", "chat", {kTalk.prompts[0]}};
  SlowDrafter slow;
  const auto evaluate = [&](const EngineOptions& served) {
    const std::vector<Candidate> candidates{{&slow, {.kind = "slow", .temperatures = {}}, served}};
    return Must(EvaluateSuite(eval.setting, one, candidates, [](int) {}))[0];
  };
  const SuiteResult sure = evaluate({.max_draft = 3, .threshold = 0.9f});
  EXPECT_GT(sure.whole.DraftsPerRound(), 2);
  EXPECT_EQ(sure.served.drafted, 0);
  const SuiteResult brief = evaluate({.fixed_draft = 1});
  EXPECT_LE(brief.served.DraftsPerRound(), 1);
  // 11 tokens and at least 8 slow rounds for them: 23 tokens a second at most in whole blocks.
  EXPECT_GE(brief.whole.rounds, 10);
  EXPECT_GT(brief.speculative.Rate(), 30);
}

// Tosses a coin between tokens 5 and 6.
class CoinDrafter : public WrongDrafter {
 public:
  void Propose(std::span<ProposeRequest> requests) override {
    static constexpr int32_t kIds[] = {5, 6};
    static constexpr float kHalves[] = {0.5f, 0.5f};
    for (const ProposeRequest& r : requests) {
      for (int k = 0; k < std::min(r.max_tokens, 3); ++k) {
        const bool heads = UniformFloat(1, tosses_++, Purpose::kTest) < 0.5f;
        r.proposal->Add(kIds[heads], {kIds, kHalves});
      }
    }
  }

 private:
  uint64_t tosses_ = 0;
};

// With sampled drafts whole blocks are judged token by token, whatever rule is served: a run of its own.
TEST(EvaluateSuite, WholeBlocksAreJudgedTokenByToken) {
  TinyEval eval;
  eval.setting.rollout.max_tokens = 60;
  eval.setting.rollout.sampling.temperature = 1;
  eval.setting.rollout.sampling.logit_bias = {{5, 6.0f}, {6, 5.0f}};  // drafts are kept now and then
  const auto evaluate = [&](bool blocks) {
    CoinDrafter coin;
    const std::vector<Candidate> candidates{
        {&coin, {.kind = "coin", .temperatures = {}}, {.fixed_draft = 3, .accept_blocks = blocks}}};
    return Must(EvaluateSuite(eval.setting, {"one", "chat", {kTalk.prompts[0]}}, candidates, [](int) {}))[0];
  };
  const SuiteResult by_token = evaluate(false), by_block = evaluate(true);
  EXPECT_EQ(by_token.whole.accepted_at, by_token.served.accepted_at) << "one run is both";
  EXPECT_EQ(by_block.whole.accepted_at, by_token.whole.accepted_at);
  EXPECT_EQ(by_block.whole.rounds, by_token.whole.rounds);
}

// A target that says something else where it verifies just one draft, up to position `end`.
class FickleTarget : public Target {
 public:
  FickleTarget(Target& inner, int end) : inner_(inner), end_(end) {}
  const ModelConfig& config() const override { return inner_.config(); }
  const TargetLimits& limits() const override { return inner_.limits(); }
  KvLayout kv_layout() const override { return inner_.kv_layout(); }
  TargetMemory memory() const override { return inner_.memory(); }
  const PackedMatrix& embedding() const override { return inner_.embedding(); }
  const PackedMatrix& head() const override { return inner_.head(); }
  Isa isa() const override { return inner_.isa(); }

  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int> tap_layers) override {
    const ForwardOutput output = inner_.Forward(segments, tap_layers);
    if (segments[0].tokens.size() == 2 && output.logit_rows == 2 && segments[0].position < end_)
      output.logits[40] = 1e6f;
    return output;
  }

 private:
  Target& inner_;
  int end_;
};

TEST(EvaluateSuite, ServedAnswersAreComparedToo) {
  TinyEval eval;
  const EvalPrompt& prompt = kTalk.prompts[0];
  const size_t end = eval.setting.encoder.Encode({{"user", prompt.turns[0]}}).size() + 8;
  FickleTarget fickle(*eval.model.target, int(end));  // whole blocks are cut to one draft behind it only
  EvalSetting setting{.target = fickle,
                      .blocks = eval.setting.blocks,
                      .tokenizer = eval.setting.tokenizer,
                      .encoder = eval.setting.encoder,
                      .costs = CheapRows(),
                      .rollout = eval.setting.rollout};
  WrongDrafter wrong;
  const auto different = [&](const EngineOptions& served) {
    const std::vector<Candidate> candidates{{&wrong, {.kind = "wrong", .temperatures = {}}, served}};
    return Must(EvaluateSuite(setting, {"one", "chat", {prompt}}, candidates, [](int) {}))[0].different;
  };
  EXPECT_EQ(different({.fixed_draft = 1}), 1);
}

}  // namespace
}  // namespace dspark::test

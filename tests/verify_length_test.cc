// How many sampled drafts are verified, through the whole engine: by what was known before they were drawn,
// and by nothing else (docs/lossless.md; paper §3.2.2 and Appendix A).
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "chi_square.h"
#include "core/rng.h"
#include "replies.h"
#include "sanitized.h"

namespace dspark::test {
namespace {

constexpr int32_t kFirst = 16, kTokens = 3;  // replies are made of 16, 17 and 18

struct Script {
  int drafts = 2;
  bool runs_model = false;
  int32_t always = -1;  // ≥ 0: drafts are this token, though q says that any might have been
  bool peeks = false;   // proposes only what begins with kFirst
  std::function<float(int k, int32_t previous)> confidence = {};  // previous: -1 at k = 0
};

// Draws uniformly from the three tokens.
class ScriptedSampler : public Drafter {
 public:
  explicit ScriptedSampler(Script script) : script_(std::move(script)) {}
  int asked() const { return asked_; }  // how often it was to draft

  int max_tokens() const override { return script_.drafts; }
  bool runs_model() const override { return script_.runs_model; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      if (request.free_only || !request.sampler) continue;
      ++asked_;
      const int n = std::min(request.max_tokens, script_.drafts);
      for (int k = 0; k < n; ++k) Draft(k, request.proposal);
      if (script_.peeks && request.proposal->size() > 0 && request.proposal->tokens[0] != kFirst)
        request.proposal->Clear();
    }
  }

 private:
  void Draft(int k, Proposal* proposal) {
    static constexpr int32_t kIds[kTokens] = {kFirst, kFirst + 1, kFirst + 2};
    static constexpr float kProbs[kTokens] = {1 / 3.0f, 1 / 3.0f, 1 / 3.0f};
    if (script_.confidence)
      proposal->confidence.push_back(script_.confidence(k, k == 0 ? -1 : proposal->tokens.back()));
    const auto draw = int32_t(kTokens * UniformDouble(11, draws_++, Purpose::kTest));
    proposal->Add(script_.always >= 0 ? script_.always : kFirst + draw, {kIds, kProbs});
  }

  const Script script_;
  uint64_t draws_ = 0;
  int asked_ = 0;
};

Request MakeRequest(int max_tokens) {
  Request request;
  request.prompt = {10, 40, 77, 12};
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  request.sampling = {.temperature = 2, .logit_bias = {{16, 90}, {17, 90}, {18, 90}}};
  return request;
}

// c of the second draft tells the first.
float TellingConfidence(int k, int32_t previous) { return k == 0 ? 0.8f : previous == kFirst ? 0.9f : 0.05f; }

constexpr int kLength = 3;

// P(text) of all replies of kLength tokens.
std::vector<double> LawOf(TinyModel& model, const Request& request) {
  std::vector<double> law = {1};
  std::vector<std::vector<int32_t>> texts = {request.prompt};
  for (int length = 0; length < kLength; ++length) {
    std::vector<double> longer_law;
    std::vector<std::vector<int32_t>> longer;
    for (size_t i = 0; i < texts.size(); ++i) {
      const Distribution served = ServedAfter(model, texts[i], request.sampling);
      for (int32_t token = kFirst; token < kFirst + kTokens; ++token) {
        longer_law.push_back(law[i] * double(served.ProbabilityOf(token)));
        longer.push_back(texts[i]);
        longer.back().push_back(token);
      }
    }
    law = longer_law;
    texts = longer;
  }
  return law;
}

struct Seen {
  double p_value = 0;
  std::vector<int> verified_at;  // over all replies
};

Seen Draw(TinyModel& model, Script script, const EngineOptions& options, const CostTable& costs) {
  Request request = MakeRequest(kLength + 1);
  const std::vector<double> law = LawOf(model, request);
  ScriptedSampler drafter(std::move(script));
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, costs, options);
  for (int i = 0; i < (kSanitized ? 1500 : 12000); ++i) {
    request.seed = uint64_t(i);
    EXPECT_TRUE(engine.Submit(request).ok());
  }
  std::vector<int64_t> counts(law.size());
  Seen seen;
  seen.verified_at.resize(2);
  for (const auto& [id, reply] : RunAll(engine)) {
    size_t code = 0;
    for (int i = 0; i < kLength; ++i) code = kTokens * code + size_t(reply.tokens[size_t(i)] - kFirst);
    if (code >= counts.size()) return seen;
    ++counts[code];
    for (size_t k = 0; k < reply.stats.verified_at.size(); ++k)
      seen.verified_at.at(k) += reply.stats.verified_at[k];
  }
  seen.p_value = ChiSquarePValue(counts, law);
  return seen;
}

const EngineOptions kAlone = {.max_sequences = 1, .follow_costs = false};

// Appendix A: one draft does not pay, two would where the second is sure, and whether it is sure tells the
// first.
TEST(VerifyLength, StopsAtTheFirstDraftThatDoesNotPay) {
  TinyModel model;
  const CostTable costs({{1, 1}, {2, 2}, {3, 2.22}, {64, 60}});
  const Seen seen = Draw(model, {.confidence = TellingConfidence}, kAlone, costs);
  EXPECT_EQ(seen.verified_at, std::vector<int>({0, 0}));
  EXPECT_GT(seen.p_value, 1e-4);
}

// The same for one sequence among others whose proposals tell nothing.
TEST(VerifyLength, StopsForEverySequenceOfAStep) {
  TinyModel model;
  const CostTable costs({{1, 0.9}, {2, 1}, {3, 1.6}, {4, 1.65}, {64, 60}});
  for (const bool sampled_first : {true, false}) {
    ScriptedSampler drafter({.confidence = TellingConfidence});
    Engine engine(*model.target, *model.blocks, &drafter, nullptr, costs,
                  {.max_sequences = 2, .follow_costs = false});
    for (const bool sampled : {sampled_first, !sampled_first}) {
      Request request = MakeRequest(60);
      if (!sampled) request.sampling = {.temperature = 0};
      ASSERT_TRUE(engine.Submit(request).ok());
    }
    for (const auto& [id, reply] : RunAll(engine)) EXPECT_EQ(reply.stats.drafted, 0);
    EXPECT_GT(drafter.asked(), 50);
  }
}

// A second draft that is verified where the first makes it sure: known before it is drawn.
TEST(VerifyLength, MayFollowTheDraftsBefore) {
  TinyModel model;
  const CostTable costs({{1, 1}, {2, 1.3}, {3, 1.5}, {64, 60}});
  const Seen seen = Draw(model, {.confidence = TellingConfidence}, kAlone, costs);
  EXPECT_GT(seen.verified_at[1], seen.verified_at[0] / 6);
  EXPECT_LT(seen.verified_at[1], seen.verified_at[0] / 2);
  EXPECT_GT(seen.p_value, 1e-4);
}

// The asynchronous form searches all admissions, over confidences two steps old: drafts are verified where
// Algorithm 1 stops, and the text is the target's.
TEST(VerifyLength, ACapacityOfTwoStepsAgoTellsNothing) {
  TinyModel model;
  const CostTable costs({{1, 1}, {2, 1.75}, {3, 1.8}, {64, 60}});
  EngineOptions options = kAlone;
  options.zos = true;
  const Seen seen = Draw(model, {.confidence = TellingConfidence}, options, costs);
  EXPECT_GT(seen.verified_at[1], 500 / (kSanitized ? 8 : 1));
  EXPECT_GT(seen.p_value, 1e-4);
}

// The law of Draw's replies is a test with power: what verifies a draft for what it is does not pass it.
TEST(VerifyLength, APeekingDrafterShows) {
  TinyModel model;
  EXPECT_GT(Draw(model, {}, {.max_sequences = 1, .fixed_draft = 2}, {}).p_value, 1e-4);
  EXPECT_LT(Draw(model, {.peeks = true}, {.max_sequences = 1, .fixed_draft = 2}, {}).p_value, 1e-6);
}

// A parked drafter is tried now and then: one draft is verified each time, whatever it is.
TEST(VerifyLength, ATrialIsOneDraft) {
  TinyModel model;
  for (int32_t token = kFirst; token < kFirst + kTokens; ++token) {
    ScriptedSampler drafter({.runs_model = true, .always = token});
    Engine engine(*model.target, *model.blocks, &drafter, nullptr, DearRows(), {.follow_costs = false});
    const Reply reply = RunOne(engine, MakeRequest(200));
    EXPECT_GT(drafter.asked(), 2);
    EXPECT_EQ(reply.stats.drafted, drafter.asked());
  }
}

// First rounds with every draft there is, under every policy: what they are does not change how many are
// verified.
TEST(VerifyLength, DoesNotDependOnTheDraftsThemselves) {
  TinyModel model;
  const auto confidence = [](int k, int32_t) { return 0.9f - 0.1f * float(k); };
  const CostTable costs({{1, 1}, {2, 1.2}, {3, 1.5}, {4, 4}, {64, 60}});
  struct Case {
    EngineOptions options;
    int verified;
  };
  const std::vector<Case> cases = {{{.fixed_draft = 3}, 3},
                                   {{.threshold = 0.75f}, 2},
                                   {{.threshold = 0.6f, .threshold_cumulative = true}, 2},
                                   {{.follow_costs = false}, 2}};
  for (const Case& c : cases) {
    for (int32_t token = kFirst; token < kFirst + kTokens; ++token) {
      ScriptedSampler drafter({.drafts = 4, .always = token, .confidence = confidence});
      Engine engine(*model.target, *model.blocks, &drafter, nullptr, costs, c.options);
      const auto id = engine.Submit(MakeRequest(10));
      ASSERT_TRUE(id.ok());
      std::map<SequenceId, Reply> replies;
      while (replies[*id].tokens.size() < 2) Collect(engine.Step(), &replies);
      engine.Cancel(*id);
      Collect(engine.Step(), &replies);
      EXPECT_EQ(replies[*id].stats.rounds, 1);
      EXPECT_EQ(replies[*id].stats.drafted, c.verified) << "token " << token;
    }
  }
}

}  // namespace
}  // namespace dspark::test

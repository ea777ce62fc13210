// What the engine learns of a drafter that runs a model, and what it does with it: how many drafts are
// verified, and whether the drafter runs at all. Drafts, confidences, prices and costs are scripted; costs
// are in seconds where the machine's own time must not matter.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "replies.h"

namespace dspark::test {
namespace {

struct Script {
  std::vector<int> right;  // [round]: drafts before the first wrong one; the last entry for all others
  int drafts = 1;          // of a round
  float confidence = -1;   // of every draft; negative: none is told
  bool sampled = false;    // drawn from a q of their own, which is certain of them
  std::chrono::milliseconds time{0};  // of a call
};

// A drafter of one sequence that knows the reply.
class ScriptedModel : public Drafter {
 public:
  ScriptedModel(Script script, std::vector<int32_t> reply)
      : script_(std::move(script)), reply_(std::move(reply)) {}
  int runs() const { return runs_; }

  int max_tokens() const override { return script_.drafts; }
  bool runs_model() const override { return true; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    ASSERT_EQ(requests.size(), 1u);
    if (requests[0].free_only) return;
    std::this_thread::sleep_for(script_.time);
    const size_t round = std::min(size_t(runs_++), script_.right.size() - 1);
    for (int k = 0; k < requests[0].max_tokens; ++k)
      Draft(committed_ + size_t(k), k < script_.right[round], requests[0].proposal);
  }
  void Observe(std::span<const ObservedRows> rows) override { committed_ += size_t(rows[0].committed); }
  void End(SequenceId) override {}

 private:
  void Draft(size_t at, bool right, Proposal* proposal) const {
    const int32_t token = reply_[at] ^ int32_t(!right);
    constexpr float kCertain = 1;
    if (script_.confidence >= 0) proposal->confidence.push_back(script_.confidence);
    if (script_.sampled) {
      proposal->Add(token, {{&token, 1}, {&kCertain, 1}});
    } else {
      proposal->tokens.push_back(token);
    }
  }

  const Script script_;
  const std::vector<int32_t> reply_;
  size_t committed_ = 0;
  int runs_ = 0;
};

// Greedy, in the words of a sampled request where drafts are sampled: one token survives.
Request MakeRequest(const Script& script, int max_tokens) {
  Request request;
  request.prompt = {20, 21, 22, 20, 21};
  request.sampling = {.temperature = script.sampled ? 1.0f : 0.0f, .top_k = 1};
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

struct Outcome {
  SequenceStats stats;
  int runs = 0;  // of the drafter
};

Outcome RunScript(const Script& script, int max_tokens, const CostTable& costs, EngineOptions options = {}) {
  TinyModel model;
  const Request request = MakeRequest(script, max_tokens);
  const Reply plain = Plain(model, request);
  ScriptedModel drafter(script, plain.tokens);
  options.follow_costs = false;
  Engine engine(*model.target, *model.blocks, &drafter, nullptr, costs, options);
  const Reply reply = RunOne(engine, request);
  EXPECT_EQ(reply.tokens, plain.tokens);
  return {reply.stats, drafter.runs()};
}

// A pass of one row takes `row_ms`, each row more a twentieth of that: a draft pays from 0.08 on.
CostTable TwentiethPerRow(double row_ms) { return CostTable({{1, row_ms}, {64, row_ms * (1 + 63 * 0.05)}}); }

// Every draft is right, and the drafter promises one in twenty. The first is not worth its row. What came of
// it doubles the next promise, which is.
TEST(EnginePlanner, CorrectsConfidencesByWhatCameOfThem) {
  const Script modest{.right = {1}, .confidence = 0.05f};
  const SequenceStats stats = RunScript(modest, 22, TwentiethPerRow(1000)).stats;
  EXPECT_EQ(stats.rounds, 11);
  EXPECT_EQ(stats.verified_at, std::vector<int>{10});
  EXPECT_EQ(stats.accepted_at, std::vector<int>{10});
}

// A sampled draft behind the first that was not kept says nothing of its place. Here the second drafts of
// rounds 1 and 3 were examined, and one of them kept.
TEST(EnginePlanner, LearnsNothingFromDraftsBehindTheRejectedOne) {
  const Script script{.right = {2, 0, 1, 2}, .drafts = 2, .sampled = true};
  const SequenceStats stats = RunScript(script, 10, {}, {.threshold = 0.35f}).stats;
  EXPECT_EQ(stats.rounds, 4);
  EXPECT_EQ(stats.accepted_at, (std::vector<int>{3, 2}));
  EXPECT_EQ(stats.verified_at, (std::vector<int>{4, 4}));
}

// Right drafts that take far longer than the passes they save. Two calls tell the price; from then on the
// drafter runs at the 8th and 32nd of the steps without it.
TEST(EnginePlanner, ParksADrafterThatCostsMoreThanItSaves) {
  const Script dear{.right = {1}, .time = std::chrono::milliseconds(2)};
  const Script cheap{.right = {1}};
  EXPECT_EQ(RunScript(dear, 50, TwentiethPerRow(0.1)).runs, 4);
  EXPECT_EQ(RunScript(cheap, 50, TwentiethPerRow(1000)).runs, 24);
}

// Wrong drafts park it too, whatever it thinks of them.
TEST(EnginePlanner, ParksADrafterThatIsWrong) {
  const Script wrong{.right = {0}, .confidence = 0.9f};
  EXPECT_LE(RunScript(wrong, 50, TwentiethPerRow(1000)).runs, 6);
}

}  // namespace
}  // namespace dspark::test

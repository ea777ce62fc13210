// A counted table in the engine: alone, beside prompt lookup and beside a trained drafter it changes the
// speed of a reply and nothing else; and the better source of the three drafts.
#include <gtest/gtest.h>

#include "chi_square.h"
#include "data/ngram_counts.h"
#include "draft/combined.h"
#include "draft/ngram_table.h"
#include "draft/prompt_lookup.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "replies.h"
#include "sanitized.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

Request MakeRequest(int number, float temperature, int max_tokens) {
  Request request;
  for (int i = 0; i < 3 + number % 5; ++i) request.prompt.push_back(30 + (number + i) % 11);
  request.max_tokens = max_tokens;
  request.seed = uint64_t(number);
  request.sampling = {.temperature = temperature, .top_k = 3};
  request.ignore_eos = true;
  return request;
}

class NgramEngine : public testing::Test {
 protected:
  NgramEngine() : model_({.shape = {.layers = 10}, .max_taps = 3}) {}

  // A table of the model's own replies.
  std::unique_ptr<Drafter> Table(float temperature) {
    NgramCorpus corpus;
    for (int number = 0; number < 40; ++number) {
      const Request request = MakeRequest(number, temperature, 40);
      const Reply reply = Plain(model_, request);
      TrainTokens tokens{request.prompt, std::vector<uint8_t>(request.prompt.size(), 0)};
      tokens.ids.insert(tokens.ids.end(), reply.tokens.begin(), reply.tokens.end());
      tokens.loss_mask.resize(tokens.ids.size(), 1);
      corpus.Add(tokens);
    }
    const NgramConfig config{
        .order = 3, .vocab = model_.vocab(), .target_width = 64, .target_layers = 10, .vocabulary = {}};
    const std::string path = model_.dir.path() + "/table.gguf";
    EXPECT_TRUE(WriteNgramFile(config, CountNgrams(corpus, 3, model_.vocab(), 100000).entries, path).ok());
    return std::make_unique<NgramTable>(*NgramFile::Open(path));
  }
  std::unique_ptr<Drafter> RandomModel() {
    auto made = LoadDrafter(RandomDrafter(TinyDrafterConfig(DrafterKind::kBlock), 5), *model_.target,
                            model_.pool, {.max_sequences = 4, .max_context = 256, .block_tokens = 16});
    EXPECT_TRUE(made.ok());
    return std::move(made).value();
  }
  std::unique_ptr<Drafter> Combined(bool with_model, float temperature) {
    std::vector<std::unique_ptr<Drafter>> free;
    free.push_back(std::make_unique<PromptLookup>());
    free.push_back(Table(temperature));
    return std::make_unique<CombinedDrafter>(std::move(free), with_model ? RandomModel() : nullptr);
  }

  TinyModel model_;
};

TEST_F(NgramEngine, LeavesGreedyRepliesAsTheyAre) {
  std::unique_ptr<Drafter> drafters[] = {Table(0), Combined(false, 0), Combined(true, 0)};
  for (const auto& drafter : drafters) {
    for (const int fixed : {-1, 1, 6}) {
      Engine engine(*model_.target, *model_.blocks, drafter.get(), nullptr, CheapRows(),
                    {.max_sequences = 4, .prefill_rows = 17, .fixed_draft = fixed, .follow_costs = false});
      std::map<SequenceId, Request> requests;
      for (int number = 0; number < 12; ++number) {
        const Request request = MakeRequest(number + 3, 0, 30);
        requests[*engine.Submit(request)] = request;
      }
      int accepted = 0;
      for (const auto& [id, reply] : RunAll(engine)) {
        EXPECT_EQ(reply.tokens, Plain(model_, requests[id]).tokens);
        accepted += reply.stats.accepted;
      }
      EXPECT_GT(accepted, fixed == 1 ? 40 : 60) << "fixed " << fixed;
    }
  }
}

// The joint law of the two tokens behind the first.
TEST_F(NgramEngine, KeepsTheDistributionOfSampledReplies) {
  Request request = MakeRequest(0, 1.2f, 3);
  std::map<std::vector<int32_t>, double> law;
  const auto extend = [&](const auto& self, std::vector<int32_t> text, double p, int more) -> void {
    if (more == 0) {
      law[{text.begin() + int64_t(request.prompt.size()), text.end()}] = p;
      return;
    }
    const Distribution d = ServedAfter(model_, text, request.sampling);
    text.push_back(0);
    for (size_t i = 0; i < d.ids.size(); ++i) {
      text.back() = d.ids[i];
      self(self, text, p * double(d.probs[i]), more - 1);
    }
  };
  extend(extend, request.prompt, 1, 3);
  for (const bool with_model : {false, true}) {
    const std::unique_ptr<Drafter> drafter = Combined(with_model, 1.2f);
    Engine engine(*model_.target, *model_.blocks, drafter.get(), nullptr, {},
                  {.max_sequences = 4, .fixed_draft = 4});
    const int replies = kSanitized ? 800 : 4000;
    for (int i = 0; i < replies; ++i) {
      request.seed = uint64_t(i);
      ASSERT_TRUE(engine.Submit(request).ok());
    }
    std::map<std::vector<int32_t>, int64_t> seen;
    int drafted = 0;
    for (const auto& [id, reply] : RunAll(engine)) {
      ++seen[reply.tokens];
      drafted += reply.stats.drafted;
    }
    EXPECT_GT(drafted, replies / 5);
    std::vector<double> exact;
    std::vector<int64_t> counts;
    for (const auto& [tokens, p] : law) {
      exact.push_back(p);
      counts.push_back(seen[tokens]);
      seen.erase(tokens);
    }
    EXPECT_TRUE(seen.empty());
    EXPECT_GT(ChiSquarePValue(counts, exact), 1e-5);
  }
}

// Proposes a text that it knows, as a drafter's model whose time is a tenth of a step or as a free source.
class Knows : public Drafter {
 public:
  Knows(std::vector<int32_t> reply, DraftOrigin origin, int right)
      : reply_(std::move(reply)), origin_(origin), right_(right) {}
  int asked() const { return asked_; }

  int max_tokens() const override { return 4; }
  bool runs_model() const override { return origin_ == DraftOrigin::kModel; }
  void Begin(SequenceId, std::span<const int32_t>) override { at_ = 0; }
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      if (request.free_only && runs_model()) continue;
      ++asked_;
      request.proposal->origin = origin_;
      for (int k = 0; k < std::min(request.max_tokens, 4); ++k) {
        request.proposal->tokens.push_back(reply_[at_ + size_t(k)] ^ int32_t(k >= right_));
        if (origin_ == DraftOrigin::kTable) request.proposal->confidence.push_back(k < right_ ? 1.0f : 0.1f);
      }
    }
  }
  void Observe(std::span<const ObservedRows> rows) override { at_ += size_t(rows[0].committed); }
  void End(SequenceId) override {}

 private:
  const std::vector<int32_t> reply_;
  const DraftOrigin origin_;
  const int right_;  // drafts of a proposal
  size_t at_ = 0;
  int asked_ = 0;
};

// The planner runs the model where its drafts are kept more often, and leaves it where the free ones are.
TEST_F(NgramEngine, TheModelRunsWhereItIsWorthMoreThanWhatIsFree) {
  const Request request = MakeRequest(0, 0, 120);
  const std::vector<int32_t> reply = Plain(model_, request).tokens;
  const auto run = [&](int table, int model, const EngineOptions& options) {
    auto knows = std::make_unique<Knows>(reply, DraftOrigin::kModel, model);
    const Knows& asked = *knows;
    std::vector<std::unique_ptr<Drafter>> free;
    free.push_back(std::make_unique<Knows>(reply, DraftOrigin::kTable, table));
    CombinedDrafter both(std::move(free), std::move(knows));
    Engine engine(*model_.target, *model_.blocks, &both, nullptr, CostTable({{1, 1000}, {64, 1100}}),
                  options);
    const Reply got = RunOne(engine, request);
    EXPECT_EQ(got.tokens, reply);
    return std::pair(asked.asked(), got.stats.rounds);
  };
  for (const EngineOptions& options :
       {EngineOptions{.follow_costs = false}, EngineOptions{.fixed_draft = 4}}) {
    const auto [worse, rounds_of_table] = run(4, 1, options);
    EXPECT_LE(worse, 14) << "it is tried until it is known";
    EXPECT_LE(rounds_of_table, 42);
    const auto [better, rounds_of_model] = run(1, 4, options);
    EXPECT_GE(better, 20);
    EXPECT_LE(rounds_of_model, 28);
  }
}

}  // namespace
}  // namespace dspark::test

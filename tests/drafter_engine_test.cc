// Trained kinds of drafters, with random weights, through the whole engine: they change the speed of a reply
// and nothing else, and where they do not help they are left alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <random>

#include "chi_square.h"
#include "draft/combined.h"
#include "draft/prompt_lookup.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "replies.h"
#include "sanitized.h"
#include "tiny_drafter.h"

namespace {

// Heap allocations of this thread while it is told to count.
thread_local bool t_counting = false;
thread_local int t_allocations = 0;

}  // namespace

// Sanitizers bring their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
[[gnu::noinline]] void* operator new(size_t size) {
  t_allocations += t_counting;
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace dspark::test {
namespace {

struct Kind {
  std::string name;
  DrafterKind kind;
  MarkovHead markov = MarkovHead::kNone;
};

DrafterConfig ConfigOf(const Kind& kind) {
  DrafterConfig c = TinyDrafterConfig(kind.kind);
  c.markov = kind.markov;
  if (kind.markov != MarkovHead::kNone) {
    c.markov_rank = 32;
    c.confidence = c.confidence_with_markov = true;
  }
  return c;
}

struct Rig {
  explicit Rig(const Kind& kind, int sequences = 4, std::optional<WeightFormat> weights = {})
      : model({.shape = {.layers = 10}, .max_taps = 3}) {
    auto made = LoadDrafter(RandomDrafter(ConfigOf(kind), 5), *model.target, model.pool,
                            {.max_sequences = sequences,
                             .max_context = model.target->limits().max_context,
                             .block_tokens = 16,
                             .weights = weights});
    if (!made) CheckFailed(__FILE__, __LINE__, made.error().text);
    drafter = std::move(made).value();
  }
  TinyModel model;
  std::unique_ptr<Drafter> drafter;
};

Request MakeRequest(uint32_t seed, float temperature) {
  std::mt19937 random(seed);
  Request request;
  request.prompt.resize(1 + random() % 40);
  for (auto& token : request.prompt) token = int32_t(3 + random() % 60);
  request.max_tokens = int(2 + random() % 40);
  request.seed = seed;
  request.sampling.temperature = temperature;
  request.ignore_eos = true;
  return request;
}

class DrafterInEngine : public testing::TestWithParam<Kind> {};

TEST_P(DrafterInEngine, LeavesGreedyRepliesAsTheyAre) {
  for (const auto weights : {std::optional<WeightFormat>(), std::optional(WeightFormat::kInt8)}) {
    Rig rig(GetParam(), 4, weights);
    for (const int fixed : {-1, 1, 4}) {
      Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), rig.model.files.tokenizer.get(),
                    CheapRows(), {.max_sequences = 4, .prefill_rows = 17, .fixed_draft = fixed});
      std::map<SequenceId, Request> requests;
      for (uint32_t seed = 0; seed < 12; ++seed) {
        Request request = MakeRequest(seed, 0);
        if (seed % 3 == 0) {  // drafts see the penalties too
          request.sampling.repetition_penalty = 1.3f;
          request.sampling.logit_bias = {{9, 2}};
        }
        requests[*engine.Submit(request)] = request;
      }
      for (const auto& [id, reply] : RunAll(engine)) {
        EXPECT_EQ(reply.tokens, Plain(rig.model, requests[id]).tokens) << "fixed " << fixed;
        EXPECT_TRUE(fixed < 0 || requests[id].max_tokens == 2 || reply.stats.drafted > 0);
      }
    }
  }
}

// The joint law of the two tokens behind the first, at a temperature where everything is possible.
TEST_P(DrafterInEngine, KeepsTheDistributionOfSampledReplies) {
  Rig rig(GetParam());
  Request request;
  request.prompt = {30, 31, 32};
  request.max_tokens = 3;
  request.ignore_eos = true;
  request.sampling = {.temperature = 1.2f, .top_k = 3};
  std::map<std::vector<int32_t>, double> law;
  const auto extend = [&](const auto& self, std::vector<int32_t> text, double p, int more) -> void {
    if (more == 0) {
      law[{text.begin() + 3, text.end()}] = p;
      return;
    }
    const Distribution d = ServedAfter(rig.model, text, request.sampling);
    text.push_back(0);
    for (size_t i = 0; i < d.ids.size(); ++i) {
      text.back() = d.ids[i];
      self(self, text, p * double(d.probs[i]), more - 1);
    }
  };
  extend(extend, request.prompt, 1, 3);

  Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), nullptr, {},
                {.max_sequences = 4, .fixed_draft = 4});
  constexpr int kReplies = kSanitized ? 800 : 4000;
  for (int i = 0; i < kReplies; ++i) {
    request.seed = uint64_t(i);
    ASSERT_TRUE(engine.Submit(request).ok());
  }
  std::map<std::vector<int32_t>, int64_t> seen;
  int drafted = 0;
  for (const auto& [id, reply] : RunAll(engine)) {
    ++seen[reply.tokens];
    drafted += reply.stats.drafted;
  }
  EXPECT_GT(drafted, kReplies / 2);
  std::vector<double> exact;
  std::vector<int64_t> counts;
  for (const auto& [tokens, p] : law) {
    exact.push_back(p);
    counts.push_back(seen[tokens]);
    seen.erase(tokens);
  }
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const auto& s) { return s.second == 0; }));
  EXPECT_GT(ChiSquarePValue(counts, exact), 1e-5);
}

// The same over many rounds, with two tokens to choose from: drafts and tests of one round must not come back
// in the next. Penalties see the text and nothing else.
TEST_P(DrafterInEngine, KeepsTheDistributionOverManyRounds) {
  Rig rig(GetParam());
  constexpr int kLength = 7;
  Request request;
  request.prompt = {30, 31, 32};
  request.max_tokens = kLength;
  request.ignore_eos = true;
  request.sampling = {.temperature = 2, .frequency_penalty = 0.7f, .logit_bias = {{16, 80}, {17, 80}}};
  std::vector<double> law(1 << kLength, 1);
  for (int length = 0; length < kLength; ++length) {
    for (size_t prefix = 0; prefix < size_t(1) << length; ++prefix) {
      std::vector<int32_t> text = request.prompt;
      TokenHistory history(rig.model.vocab());
      for (const int32_t token : text) history.AddPrompt(token);
      for (int i = length; i-- > 0;) {
        text.push_back(16 + int32_t(prefix >> i & 1));
        history.Push(text.back());
      }
      const Distribution d = ServedAfter(rig.model, text, request.sampling, &history);
      const int rest = kLength - length - 1;
      for (size_t code = prefix << (rest + 1); code < (prefix + 1) << (rest + 1); ++code)
        law[code] *= double(d.ProbabilityOf(16 + int32_t(code >> rest & 1)));
    }
  }
  for (const bool blocks : {true, false}) {
    Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), nullptr, {},
                  {.max_sequences = 4, .fixed_draft = 4, .accept_blocks = blocks});
    const int replies = kSanitized ? 500 : 6000;
    for (int i = 0; i < replies; ++i) {
      request.seed = uint64_t(i);
      ASSERT_TRUE(engine.Submit(request).ok());
    }
    std::vector<int64_t> counts(law.size());
    for (const auto& [id, reply] : RunAll(engine)) {
      size_t code = 0;
      for (const int32_t token : reply.tokens) code = 2 * code + size_t(token - 16);
      ASSERT_LT(code, counts.size());
      ++counts[code];
    }
    EXPECT_GT(ChiSquarePValue(counts, law), 1e-5) << (blocks ? "by block" : "by token");
  }
}

// A drafter that holds a token for impossible drafts it where the request's bias wants it.
TEST_P(DrafterInEngine, DraftsWhatABiasWants) {
  Rig rig(GetParam(), 1);
  for (const float temperature : {0.0f, 1.0f}) {
    Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), nullptr, {}, {.fixed_draft = 4});
    for (const int32_t token : {0, 140, 294}) {
      Request request = MakeRequest(1, temperature);
      request.sampling.logit_bias = {{token, 100}, {7, -100}};
      request.max_tokens = 25;
      const Reply reply = RunOne(engine, request);
      EXPECT_EQ(reply.tokens, std::vector<int32_t>(25, token));
      EXPECT_EQ(reply.stats.accepted, reply.stats.drafted) << "token " << token << " at " << temperature;
      EXPECT_GT(reply.stats.accepted, 10);
    }
  }
}

// Makes `Propose` and `Observe` count what they allocate.
class Counted : public Drafter {
 public:
  explicit Counted(Drafter& inner) : inner_(inner) {}
  int max_tokens() const override { return inner_.max_tokens(); }
  std::span<const int> tap_layers() const override { return inner_.tap_layers(); }
  bool runs_model() const override { return true; }
  void Begin(SequenceId id, std::span<const int32_t> prompt) override { inner_.Begin(id, prompt); }
  void Propose(std::span<ProposeRequest> requests) override {
    t_counting = calls_++ > 40;
    inner_.Propose(requests);
    t_counting = false;
  }
  void Observe(std::span<const ObservedRows> rows) override {
    t_counting = calls_ > 40;
    inner_.Observe(rows);
    t_counting = false;
  }
  void End(SequenceId id) override { inner_.End(id); }
  int calls() const { return calls_; }

 private:
  Drafter& inner_;
  int calls_ = 0;
};

TEST_P(DrafterInEngine, DraftsWithoutAllocating) {
  Rig rig(GetParam());
  for (const float temperature : {0.0f, 0.9f}) {
    Counted drafter(*rig.drafter);
    Engine engine(*rig.model.target, *rig.model.blocks, &drafter, nullptr, {},
                  {.max_sequences = 4, .fixed_draft = 4});
    Request request = MakeRequest(3, temperature);
    request.max_tokens = 120;
    t_allocations = 0;
    RunOne(engine, request);
    EXPECT_GT(drafter.calls(), 60);
    // A sequence's list of K/V blocks grows by doubling.
    EXPECT_LE(t_allocations, 2) << "temperature " << temperature;
  }
}

// Random drafts are wrong; after a few rounds the drafter runs only now and then.
TEST_P(DrafterInEngine, IsParkedWhereItDoesNotHelp) {
  Rig rig(GetParam(), 1);
  Engine engine(*rig.model.target, *rig.model.blocks, rig.drafter.get(), nullptr, DearRows(), {});
  Request request = MakeRequest(1, 0);
  request.max_tokens = 200;
  const Reply reply = RunOne(engine, request);
  EXPECT_EQ(reply.tokens.size(), 200u);
  EXPECT_LT(reply.stats.drafted, 12);
}

TEST_P(DrafterInEngine, GivesWayToALongMatch) {
  Rig rig(GetParam(), 1);
  std::vector<std::unique_ptr<Drafter>> free;
  free.push_back(std::make_unique<PromptLookup>());
  CombinedDrafter both(std::move(free), std::move(rig.drafter));
  Engine engine(*rig.model.target, *rig.model.blocks, &both, nullptr, {}, {.fixed_draft = 5});
  // A reply that repeats itself, as the model is told to by bias: every draft of the look-up is right.
  Request request;
  request.prompt = {30, 31, 32};
  request.sampling.temperature = 0;
  request.sampling.logit_bias = {{40, 100}};
  request.max_tokens = 100;
  request.ignore_eos = true;
  const Reply reply = RunOne(engine, request);
  EXPECT_EQ(reply.tokens, std::vector<int32_t>(100, 40));
  EXPECT_GT(reply.stats.Tau(), 4);
}

INSTANTIATE_TEST_SUITE_P(All, DrafterInEngine,
                         testing::Values(Kind{"DFlash", DrafterKind::kBlock},
                                         Kind{"DSparkVanilla", DrafterKind::kBlock, MarkovHead::kVanilla},
                                         Kind{"DSparkGated", DrafterKind::kBlock, MarkovHead::kGated},
                                         Kind{"DSparkRnn", DrafterKind::kBlock, MarkovHead::kRnn},
                                         Kind{"Eagle3", DrafterKind::kEagle3},
                                         Kind{"Mtp", DrafterKind::kMtp}),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace dspark::test

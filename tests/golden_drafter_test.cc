// Every drafter of the goldens through the whole engine: recorded runs round by round, recorded sampled
// rounds, and the same text and acceptance whatever the batch, the chunks of the prompt and the blocks of
// K/V.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "draft/registry.h"
#include "engine/engine.h"
#include "golden_tensors.h"
#include "sanitized.h"
#include "test_data.h"
#include "verify/draft_sampling.h"

namespace dspark::test {
namespace {

constexpr int kDrafts = 7;

struct SetUp {
  int block_tokens = 32;
  int sequences = 1;
  std::optional<WeightFormat> weights = {};
  int candidates = 0;
};

struct Loaded {
  Loaded(const std::string& drafter_name, const SetUp& s, const std::string& target_name = "target_qwen3")
      : pool(2) {
    files = Must(OpenModel(GoldenDir() + "/drafters/" + target_name));
    const DrafterFiles drafter_files = Must(OpenDrafter(GoldenDir() + "/drafters/" + drafter_name));
    const TargetLimits limits{.max_rows = 512,
                              .max_logit_rows = 160,
                              .max_context = 256,
                              .max_taps = 8,
                              .block_tokens = s.block_tokens,
                              .kv_type = KvType::kF32,
                              .weights = s.weights};
    target = Must(LoadTarget(files, pool, limits));
    blocks = std::make_unique<BlockPool>(target->kv_layout(), s.sequences * 256 / s.block_tokens);
    drafter = Must(LoadDrafter(drafter_files, *target, pool,
                               {.max_sequences = s.sequences,
                                .max_context = limits.max_context,
                                .block_tokens = s.block_tokens,
                                .kv_type = KvType::kF32,
                                .weights = s.weights,
                                .candidates = s.candidates}));
  }
  template <class T>
  static T Must(Result<T> result) {
    if (!result) CheckFailed(__FILE__, __LINE__, result.error().text);
    return std::move(result).value();
  }
  ThreadPool pool;
  ModelFiles files;
  std::unique_ptr<Target> target;
  std::unique_ptr<BlockPool> blocks;
  std::unique_ptr<Drafter> drafter;
};

// Hands everything through and keeps the proposals.
class Recorder : public Drafter {
 public:
  explicit Recorder(Drafter& inner) : inner_(inner) {}
  int max_tokens() const override { return inner_.max_tokens(); }
  std::span<const int> tap_layers() const override { return inner_.tap_layers(); }
  void Begin(SequenceId id, std::span<const int32_t> prompt) override { inner_.Begin(id, prompt); }
  void Propose(std::span<ProposeRequest> requests) override {
    inner_.Propose(requests);
    for (const ProposeRequest& request : requests) proposals[request.sequence].push_back(*request.proposal);
  }
  void Observe(std::span<const ObservedRows> rows) override { inner_.Observe(rows); }
  void End(SequenceId id) override { inner_.End(id); }

  std::map<SequenceId, std::vector<Proposal>> proposals;

 private:
  Drafter& inner_;
};

struct Finished {
  std::vector<int32_t> tokens;
  SequenceStats stats;
};

std::map<SequenceId, Finished> RunAll(Engine& engine) {
  std::map<SequenceId, Finished> runs;
  while (!engine.Idle()) {
    for (const TokenEvent& event : engine.Step()) {
      Finished& run = runs[event.sequence];
      if (event.token >= 0) run.tokens.push_back(event.token);
      if (event.stats) run.stats = *event.stats;
    }
  }
  return runs;
}

Request Greedy(std::vector<int32_t> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

class GoldenDrafter : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("drafters/infer_" + GetParam() + ".json"); }
  GoldenTensors Golden() const {
    return GoldenTensors(GoldenDir() + "/drafters/infer_" + GetParam() + ".safetensors");
  }
  nlohmann::json Json() const {
    return nlohmann::json::parse(std::ifstream(GoldenDir() + "/drafters/infer_" + GetParam() + ".json"));
  }

  // Round by round: what was drafted, with which confidence, and how much of it was kept.
  void ExpectRun(const std::string& prefix, const Request& request, const EngineOptions& options) {
    Loaded model(GetParam(), {});
    ExpectRun(model, prefix, request, options);
  }

  void ExpectRun(Loaded& model, const std::string& prefix, const Request& request,
                 const EngineOptions& options) {
    const GoldenTensors golden = Golden();
    Recorder recorder(*model.drafter);
    Engine engine(*model.target, *model.blocks, &recorder, nullptr, {}, options);
    const size_t prompt = request.prompt.size();
    const SequenceId id = engine.Submit(request).value();
    const Finished run = RunAll(engine)[id];

    std::vector<int32_t> text = golden.Ints(prefix + ".output_ids");
    text.erase(text.begin(), text.begin() + int64_t(prompt));
    EXPECT_EQ(run.tokens, text);
    const auto drafts = golden.Ints(prefix + ".draft_tokens");
    const auto kept = golden.Ints(prefix + ".accepted"), sent = golden.Ints(prefix + ".num_draft");
    const std::vector<Proposal>& rounds = recorder.proposals[id];
    int accepted = 0, last_accepted = 0, verified = 0;
    for (size_t r = 0; r < rounds.size(); ++r) {
      const Proposal& proposal = rounds[r];
      for (int k = 0; k < proposal.size(); ++k) {
        const int32_t recorded = drafts[r * kDrafts + size_t(k)];
        if (recorded < 0) break;  // Eagle3's evaluator does not draft behind a stop token
        EXPECT_EQ(proposal.tokens[size_t(k)], recorded) << prefix << " round " << r << " draft " << k;
      }
      if (!proposal.confidence.empty()) {
        const auto logits = golden.Floats(prefix + ".confidence");
        for (size_t k = 0; k < proposal.confidence.size(); ++k)
          EXPECT_NEAR(proposal.confidence[k], 1 / (1 + std::exp(-logits[r * kDrafts + k])), 1e-4);
      }
      // The last round has less room than the reference takes.
      verified += options.threshold > 0 ? std::min(int(sent[r]), proposal.size()) : proposal.size();
      last_accepted = std::min(int(kept[r]), proposal.size());
      accepted += last_accepted;
    }
    EXPECT_GE(rounds.size() + 2, kept.size()) << "the reference drafts where no token is wanted any more";
    EXPECT_EQ(run.stats.drafted, verified);
    EXPECT_LE(std::abs(run.stats.accepted - accepted), last_accepted);
  }
};

class GoldenDSparkDrafter : public GoldenDrafter {};
class GoldenGgufDrafter : public GoldenDrafter {};

TEST_P(GoldenDrafter, GreedyRunRoundByRound) {
  EngineOptions options{.fixed_draft = kDrafts};
  ExpectRun("greedy", Greedy(Golden().Ints("prompt_ids"), 96), options);
}

// llama.cpp's files: with the head left to the target, with an embedding that must not be taken for the head,
// and a plain DFlash that says where its slots look.
TEST_P(GoldenGgufDrafter, GreedyRunRoundByRound) {
  std::vector<std::string> files = {GetParam() + ".gguf"};
  if (GetParam() == "dspark_vanilla") files.push_back("dspark_vanilla.own_embedding.gguf");
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    Loaded model("gguf/" + file, {}, "gguf/target_qwen3.gguf");
    ExpectRun(model, "greedy", Greedy(Golden().Ints("prompt_ids"), 96), {.fixed_draft = kDrafts});
  }
}

TEST_P(GoldenDrafter, RunThatEndsInAnAcceptedStopToken) {
  Request request = Greedy(Golden().Ints("stop.prompt_ids"), 96);
  request.stop_tokens = {510, 508};
  ExpectRun("stop", request, {.fixed_draft = kDrafts});
}

TEST_P(GoldenDSparkDrafter, RunUnderTheStaticThreshold) {
  ExpectRun("thr0.5", Greedy(Golden().Ints("prompt_ids"), 96), {.threshold = 0.5f});
}

// Draws what it is told and keeps the q it would have drawn from.
class Teacher : public DraftSampler {
 public:
  Teacher(std::vector<int32_t> drafts, float temperature) : drafts_(std::move(drafts)) {
    params_.temperature = temperature;
  }
  int32_t Draw(std::span<const int32_t> ids, std::span<float> logits, Proposal* proposal) override {
    const Distribution& made = made_.Make(Isa::kReference, ids, logits, params_, nullptr);
    const int32_t token = drafts_[size_t(proposal->size())];
    proposal->Add(token, {made.ids, made.probs});
    return token;
  }

 private:
  std::vector<int32_t> drafts_;
  SamplingParams params_;
  CandidateDistribution made_;
};

// The target's logits of the last `rows` of `tokens`.
std::vector<std::vector<float>> Logits(Loaded& model, const std::vector<int32_t>& tokens, int rows) {
  KvTable kv(*model.blocks);
  EXPECT_TRUE(kv.Reserve(int(tokens.size())));
  const Segment segment{.tokens = tokens, .kv = &kv, .logits_from = int(tokens.size()) - rows};
  const ForwardOutput output = model.target->Forward({&segment, 1}, {});
  std::vector<std::vector<float>> logits;
  for (int r = 0; r < rows; ++r) {
    const float* row = output.logits + size_t(r) * output.logits_stride;
    logits.emplace_back(row, row + model.files.config.vocab);
  }
  return logits;
}

// What the drafter proposes after `text`, its drafts told by `sampler`.
Proposal ProposeAfter(Loaded& model, const std::vector<int32_t>& text, DraftSampler* sampler) {
  KvTable kv(*model.blocks);
  EXPECT_TRUE(kv.Reserve(int(text.size())));
  const std::span<const int32_t> rows = std::span(text).first(text.size() - 1);
  const Segment segment{.tokens = rows, .kv = &kv, .logits_from = int(rows.size())};
  const ForwardOutput output = model.target->Forward({&segment, 1}, model.drafter->tap_layers());
  constexpr SequenceId kId = 1;
  model.drafter->Begin(kId, rows);
  const ObservedRows observed{.sequence = kId,
                              .next = std::span(text).subspan(1),
                              .committed = 1,
                              .taps = output.taps,
                              .taps_stride = output.taps_stride};
  model.drafter->Observe({&observed, 1});
  Proposal proposal;
  ProposeRequest request{.sequence = kId, .max_tokens = kDrafts, .proposal = &proposal, .sampler = sampler};
  model.drafter->Propose({&request, 1});
  model.drafter->End(kId);
  return proposal;
}

TEST_P(GoldenDrafter, SampledRounds) {
  const GoldenTensors golden = Golden();
  const nlohmann::json json = Json();
  for (const std::string round : {"t1.0.r0", "t1.0.r1", "t1.0.r2", "t0.6.r0"}) {
    SCOPED_TRACE(round);
    Loaded model(GetParam(), {});
    const float temperature = round.starts_with("t1.0") ? 1.0f : 0.6f;
    const std::vector<int32_t> prefix = golden.Ints(round + ".prefix_ids"),
                               drafts = golden.Ints(round + ".draft_tokens");
    Teacher teacher(drafts, temperature);
    const Proposal proposal = ProposeAfter(model, prefix, &teacher);
    ASSERT_EQ(proposal.size(), kDrafts);

    std::vector<int32_t> all = prefix;
    all.insert(all.end(), drafts.begin(), drafts.end());
    const auto logits = Logits(model, all, kDrafts + 1);
    const auto q = golden.Floats(round + ".q"), p = golden.Floats(round + ".p"),
               uniform = golden.Floats(round + ".uniform"), accept = golden.Floats(round + ".accept_prob"),
               residual = golden.Floats(round + ".residual");
    const size_t vocab = size_t(model.files.config.vocab);
    int accepted = -1;
    for (size_t k = 0; k <= kDrafts; ++k) {
      Distribution served;
      std::vector<float> row = logits[k];
      ServedDistribution(Isa::kReference, row, {.temperature = temperature}, nullptr, &served);
      for (size_t v = 0; v < vocab; ++v)
        ASSERT_NEAR(served.ProbabilityOf(int32_t(v)), p[k * vocab + v], 1e-4);
      if (k == kDrafts) break;
      const Distribution drawn{{proposal.Q(int(k)).ids.begin(), proposal.Q(int(k)).ids.end()},
                               {proposal.Q(int(k)).probs.begin(), proposal.Q(int(k)).probs.end()}};
      double mass = 0;
      for (size_t v = 0; v < vocab; ++v) {
        ASSERT_NEAR(drawn.ProbabilityOf(int32_t(v)), q[k * vocab + v], 1e-4);
        mass += std::max(0.0f, served.ProbabilityOf(int32_t(v)) - drawn.ProbabilityOf(int32_t(v)));
      }
      for (size_t v = 0; v < vocab && mass > 1e-3; ++v) {
        const float rest = std::max(0.0f, served.ProbabilityOf(int32_t(v)) - drawn.ProbabilityOf(int32_t(v)));
        ASSERT_NEAR(rest / mass, residual[k * vocab + v], 2e-3);
      }
      const float at_p = served.ProbabilityOf(drafts[k]), at_q = drawn.ProbabilityOf(drafts[k]);
      EXPECT_NEAR(std::min(1.0f, at_p / at_q), accept[k], 1e-3);
      if (accepted < 0 && !KeepsDraft(uniform[k], at_p, at_q)) accepted = int(k);
      if (!proposal.confidence.empty()) {
        const float logit = golden.Floats(round + ".confidence")[k];
        EXPECT_NEAR(proposal.confidence[k], 1 / (1 + std::exp(-logit)), 1e-4);
      }
    }
    const int recorded = json[round.substr(0, 4)][size_t(round.back() - '0')]["accepted"];
    EXPECT_EQ(accepted < 0 ? kDrafts : accepted, recorded);
  }
}

constexpr int kReplyTokens = kSanitized ? 6 : 24;

// Prompts of different lengths, cut from the recorded text.
std::vector<Request> Requests(const GoldenTensors& golden, int count) {
  const std::vector<int32_t> text = golden.Ints("greedy.output_ids");
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    const auto begin = text.begin() + i * 3;
    requests.push_back(Greedy(std::vector<int32_t>(begin, begin + 20 + 5 * (i % 7)), kReplyTokens + i / 2));
  }
  return requests;
}

struct Outcome {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<int> accepted, rounds;
  bool operator==(const Outcome&) const = default;
};

Outcome RunRequests(Loaded& model, bool speculate, const std::vector<Request>& requests, int batch,
                    int chunk) {
  Engine engine(*model.target, *model.blocks, speculate ? model.drafter.get() : nullptr, nullptr, {},
                {.max_sequences = batch, .prefill_rows = chunk, .fixed_draft = kDrafts});
  std::vector<SequenceId> ids;
  for (const Request& request : requests) ids.push_back(engine.Submit(request).value());
  auto runs = RunAll(engine);
  Outcome outcome;
  for (const SequenceId id : ids) {
    outcome.tokens.push_back(runs[id].tokens);
    outcome.accepted.push_back(runs[id].stats.accepted);
    outcome.rounds.push_back(runs[id].stats.rounds);
  }
  return outcome;
}

TEST_P(GoldenDrafter, TextAndAcceptanceDependOnNothingButTheRequest) {
  const std::vector<Request> requests = Requests(Golden(), 16);
  for (const auto weights : {std::optional<WeightFormat>(), std::optional(WeightFormat::kInt8),
                             std::optional(WeightFormat::kInt4Min)}) {
    Loaded first(GetParam(), {.sequences = 1, .weights = weights});
    const Outcome plain = RunRequests(first, false, requests, 1, 256);
    const Outcome alone = RunRequests(first, true, requests, 1, 256);
    EXPECT_EQ(alone.tokens, plain.tokens);
    int accepted = 0;
    for (const int n : alone.accepted) accepted += n;
    EXPECT_GT(accepted, 2 * kReplyTokens) << "too little accepted to compare";
    for (const int batch : {4, 8, 16}) {
      const int chunk = batch == 8 ? 5 : 256, block_tokens = batch == 16 ? 64 : 16;
      Loaded model(GetParam(), {.block_tokens = block_tokens, .sequences = batch, .weights = weights});
      EXPECT_EQ(RunRequests(model, true, requests, batch, chunk), alone) << "batch " << batch;
    }
  }
}

// A request may end anywhere in an accepted block: by its length, by the end of the context.
TEST_P(GoldenDrafter, EndsInsideAnAcceptedBlock) {
  const std::vector<int32_t> prompt = Golden().Ints("prompt_ids"), text = Golden().Ints("greedy.output_ids");
  Loaded model(GetParam(), {});
  for (int length = 1; length <= kReplyTokens; ++length) {
    const Outcome outcome = RunRequests(model, true, {Greedy(prompt, length)}, 1, 256);
    const auto begin = text.begin() + int64_t(prompt.size());
    EXPECT_EQ(outcome.tokens[0], std::vector<int32_t>(begin, begin + length));
  }
  const Outcome plain = RunRequests(model, false, {Greedy(prompt, 4096)}, 1, 256);
  EXPECT_EQ(plain.tokens[0].size() + prompt.size(), 256u) << "the context ends it";
  EXPECT_EQ(RunRequests(model, true, {Greedy(prompt, 4096)}, 1, 256).tokens, plain.tokens);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenDrafter,
                         testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn", "dflash", "eagle3"),
                         [](const auto& drafter) { return drafter.param; });
INSTANTIATE_TEST_SUITE_P(All, GoldenGgufDrafter, testing::Values("dspark_vanilla", "dflash"),
                         [](const auto& drafter) { return drafter.param; });
INSTANTIATE_TEST_SUITE_P(All, GoldenDSparkDrafter,
                         testing::Values("dspark_vanilla", "dspark_gated", "dspark_rnn"),
                         [](const auto& drafter) { return drafter.param; });

}  // namespace
}  // namespace dspark::test

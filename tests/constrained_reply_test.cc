// Replies that keep to a grammar, through the whole engine: drafts change their speed and nothing else, and
// every reply that ends by itself is a text of the grammar.
#include <gtest/gtest.h>

#include <algorithm>

#include "chi_square.h"
#include "core/rng.h"
#include "draft/prompt_lookup.h"
#include "draft/random_weights.h"
#include "draft/registry.h"
#include "grammar/grammar_constraint.h"
#include "grammar/json_grammar.h"
#include "grammar/json_schema.h"
#include "replies.h"
#include "sanitized.h"
#include "tiny_drafter.h"

namespace dspark::test {
namespace {

using Json = nlohmann::ordered_json;

const Json kSchema = Json::parse(R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 4},
    "kind": {"enum": ["river", "rivers", "road"]},
    "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 3},
    "open": {"type": "boolean"}
  },
  "required": ["name", "kind", "sizes"]
})");

bool KeepsToSchema(const std::string& text) {
  const Json value = Json::parse(text, nullptr, false);
  if (!value.is_object() || !value.contains("name") || !value.contains("kind") || !value.contains("sizes"))
    return false;
  for (const auto& [name, member] : value.items()) {
    if (!kSchema["properties"].contains(name)) return false;
  }
  const Json kinds = kSchema["properties"]["kind"]["enum"], sizes = value["sizes"];
  const bool in_range =
      std::ranges::all_of(sizes, [](const Json& n) { return n.is_number_integer() && n >= 0 && n <= 99; });
  return value["name"].is_string() && std::ranges::find(kinds, value["kind"]) != kinds.end() &&
         sizes.is_array() && !sizes.empty() && sizes.size() <= 3 && in_range &&
         value.value("open", Json(true)).is_boolean();
}

std::shared_ptr<const TokenTrie> TrieOf(const TinyModel& model) {
  return std::make_shared<TokenTrie>(*model.files.tokenizer, model.files.config.eos);
}

std::shared_ptr<const Constraint> SchemaConstraint(const TinyModel& model) {
  const auto trie = TrieOf(model);
  GrammarBuilder builder(trie->single_bytes());
  JsonGrammar json(builder);
  const auto root = CompileSchema(json, kSchema);
  EXPECT_TRUE(root.ok());
  return std::make_shared<GrammarConstraint>(std::move(builder.Finish(*root)).value(), trie);
}

Request MakeRequest(const TinyModel& model, uint64_t seed, float temperature) {
  Request request;
  request.prompt = model.files.tokenizer->Encode(
      R"(Like {"name": "Po", "kind": "river", "sizes": [12, 5], "open": true} or {"name":"A1","kind":"road","sizes":[7]}: )" +
          std::to_string(seed),
      false);
  request.max_tokens = 120;
  request.seed = seed;
  request.sampling.temperature = temperature;
  request.constraint = SchemaConstraint(model);
  return request;
}

// Drafts of any drafter: random tokens that are often wrong, some of them forbidden.
class RandomDrafts : public Drafter {
 public:
  int max_tokens() const override { return 5; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      for (int k = 0; k < std::min(request.max_tokens, 5); ++k) {
        std::vector<int32_t> ids(12);
        for (int32_t& id : ids) id = int32_t(3 + Uniform() * 127);
        std::vector<float> logits(ids.size());
        for (float& logit : logits) logit = float(Uniform());
        std::sort(ids.begin(), ids.end());
        ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
        logits.resize(ids.size());
        if (request.sampler)
          request.sampler->Draw(ids, logits, request.proposal);
        else
          request.proposal->tokens.push_back(ids[0]);
      }
    }
  }

 private:
  double Uniform() { return UniformDouble(5, draws_++, Purpose::kTest); }
  uint64_t draws_ = 0;
};

std::unique_ptr<Drafter> MakeDrafter(TinyModel& model, const std::string& kind) {
  if (kind == "lookup")
    return std::make_unique<PromptLookup>(PromptLookupOptions{.max_tokens = 6, .min_match = 1});
  if (kind == "random") return std::make_unique<RandomDrafts>();
  DrafterConfig config = TinyDrafterConfig(DrafterKind::kBlock);
  config.markov = MarkovHead::kVanilla;
  config.markov_rank = 32;
  config.confidence = config.confidence_with_markov = true;
  auto made = LoadDrafter(
      RandomDrafter(config, 5), *model.target, model.pool,
      {.max_sequences = 4, .max_context = model.target->limits().max_context, .block_tokens = 16});
  EXPECT_TRUE(made.ok());
  return std::move(made).value();
}

class ConstrainedReply : public testing::TestWithParam<std::string> {
 protected:
  TinyModel model_{{.shape = {.layers = 10}, .max_taps = 3}};
};

// Greedy, and sampled with drafts that are not drawn: plain constrained decoding, token by token.
TEST_P(ConstrainedReply, IsThatOfPlainDecoding) {
  const auto drafter = MakeDrafter(model_, GetParam());
  int accepted = 0, ended = 0;
  for (const float temperature : {0.0f, 1.0f}) {
    Engine engine(*model_.target, *model_.blocks, drafter.get(), model_.files.tokenizer.get(), CheapRows(),
                  {.max_sequences = 4, .fixed_draft = 4, .draft_forced = temperature > 0});
    std::map<SequenceId, Request> requests;
    for (uint64_t seed = 0; seed < 10; ++seed) {
      Request request = MakeRequest(model_, seed, temperature);
      request.reproducible = true;
      requests[*engine.Submit(request)] = request;
    }
    for (const auto& [id, reply] : RunAll(engine)) {
      EXPECT_EQ(reply.tokens, Plain(model_, requests[id]).tokens);
      EXPECT_GT(reply.stats.drafted, 0);
      accepted += reply.stats.accepted;
      if (reply.finish != FinishReason::kStop) continue;
      ++ended;
      EXPECT_TRUE(KeepsToSchema(reply.text)) << reply.text;
    }
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(ended, 15);
}

// Drawn drafts: every reply that ends is a text of the schema.
TEST_P(ConstrainedReply, KeepsToTheSchemaWhenDraftsAreDrawn) {
  const auto drafter = MakeDrafter(model_, GetParam());
  for (const bool blocks : {true, false}) {
    Engine engine(*model_.target, *model_.blocks, drafter.get(), model_.files.tokenizer.get(), CheapRows(),
                  {.max_sequences = 4, .fixed_draft = 4, .accept_blocks = blocks});
    for (uint64_t seed = 0; seed < 12; ++seed)
      ASSERT_TRUE(engine.Submit(MakeRequest(model_, seed, 1.3f)).ok());
    int ended = 0;
    for (const auto& [id, reply] : RunAll(engine)) {
      EXPECT_NE(reply.finish, FinishReason::kError) << reply.text << ": " << reply.events.back().error;
      if (reply.finish != FinishReason::kStop) continue;
      ++ended;
      EXPECT_TRUE(KeepsToSchema(reply.text)) << reply.text;
    }
    EXPECT_GT(ended, 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Drafters, ConstrainedReply, testing::Values("lookup", "random", "dspark"),
                         [](const auto& kind) { return kind.param; });

// How drafts of three letters, some of which may not come next, reach the engine.
enum class Drafts {
  kFiltered,  // by the request's sampler: drawn among those that may
  kKept,      // drawn among all; the accept rule refuses
  kDropped,   // drawn among all, and cut where one may not come: what is verified depends on the draw
};

class LetterDrafts : public Drafter {
 public:
  LetterDrafts(Drafts drafts, std::shared_ptr<const Constraint> constraint, std::vector<int32_t> letters)
      : drafts_(drafts),
        constraint_(std::move(constraint)),
        letters_(std::move(letters)),
        probs_(letters_.size(), 1.0f / float(letters_.size())) {}

  int max_tokens() const override { return 3; }
  void Begin(SequenceId, std::span<const int32_t>) override { text_.clear(); }
  void Observe(std::span<const ObservedRows> rows) override {
    const auto next = rows[0].next.last(size_t(rows[0].committed));
    text_.insert(text_.end(), next.begin(), next.end());
  }
  void End(SequenceId) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    const auto constraint = constraint_->Clone();
    for (const int32_t token : text_) constraint->Push(token);
    for (int k = 0; k < std::min(requests[0].max_tokens, 3); ++k) {
      Proposal& proposal = *requests[0].proposal;
      if (drafts_ == Drafts::kFiltered) {
        std::vector<float> logits(letters_.size());
        requests[0].sampler->Draw(letters_, logits, &proposal);
        continue;
      }
      const int32_t token =
          letters_[size_t(double(letters_.size()) * UniformDouble(11, draws_++, Purpose::kTest))];
      if (drafts_ == Drafts::kDropped && !constraint->Allows(token)) return;
      constraint->Push(token);
      proposal.Add(token, {letters_, probs_});
    }
  }

 private:
  const Drafts drafts_;
  const std::shared_ptr<const Constraint> constraint_;
  const std::vector<int32_t> letters_;
  const std::vector<float> probs_;
  std::vector<int32_t> text_;
  uint64_t draws_ = 0;
};

const std::vector<std::string> kWords = {"aabc", "aacc", "abab", "abcb", "acba", "baab",
                                         "bacb", "bbba", "bcab", "caba", "cacb", "ccca"};

// P(word) of every word, by plain decoding: the served distribution among the tokens that may come next.
std::vector<double> LawOf(TinyModel& model, const Request& request) {
  std::vector<double> law;
  for (const std::string& word : kWords) {
    std::vector<int32_t> text = request.prompt;
    const auto constraint = request.constraint->Clone();
    double p = 1;
    for (const char letter : word) {
      KvTable kv(*model.blocks);
      EXPECT_TRUE(kv.Reserve(int(text.size())));
      const Segment segment{.tokens = text, .kv = &kv, .logits_from = int(text.size()) - 1};
      std::span<float> logits(model.target->Forward({&segment, 1}, {}).logits, size_t(model.vocab()));
      constraint->Mask(logits);
      Distribution served;
      ServedDistribution(model.target->isa(), logits, request.sampling, nullptr, &served);
      text.push_back(model.files.tokenizer->Encode(std::string(1, letter), false)[0]);
      p *= double(served.ProbabilityOf(text.back()));
      constraint->Push(text.back());
    }
    law.push_back(p);
  }
  return law;
}

double PValueOf(Drafts drafts, bool blocks, uint64_t replies = kSanitized ? 1500 : 4000) {
  TinyModel model;
  const auto trie = TrieOf(model);
  GrammarBuilder builder(trie->single_bytes());
  Request request;
  request.prompt = {30, 31, 32};
  request.max_tokens = 10;
  request.sampling.temperature = 1.5f;
  request.constraint =
      std::make_shared<GrammarConstraint>(std::move(builder.Finish(builder.Texts(kWords))).value(), trie);
  const std::vector<double> law = LawOf(model, request);
  LetterDrafts drafter(drafts, request.constraint, model.files.tokenizer->Encode("abc", false));
  Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), {},
                {.max_sequences = 1, .fixed_draft = 3, .accept_blocks = blocks});
  std::vector<int64_t> counts(kWords.size());
  int accepted = 0;
  constexpr uint64_t kBatch = 100;
  for (uint64_t begin = 0; begin < replies; begin += kBatch) {
    for (request.seed = begin; request.seed < begin + kBatch; ++request.seed)
      EXPECT_TRUE(engine.Submit(request).ok());
    for (const auto& [id, reply] : RunAll(engine)) {
      const auto at = std::ranges::find(kWords, reply.text);
      if (at == kWords.end()) return 0;
      ++counts[size_t(at - kWords.begin())];
      accepted += reply.stats.accepted;
    }
  }
  EXPECT_GT(accepted, 500);
  return ChiSquarePValue(counts, law);
}

TEST(ConstrainedLaw, IsPlainDecodingsWithDrawnDrafts) {
  for (const bool blocks : {true, false}) {
    EXPECT_GT(PValueOf(Drafts::kFiltered, blocks), 1e-4);
    EXPECT_GT(PValueOf(Drafts::kKept, blocks), 1e-4);
  }
}

// The law above is a test with power: drafts that are dropped after they were drawn do not pass it. Token by
// token the wrong rule is off by less: over other seeds 4000 replies gave p = 6e-6 ... 6e-9, 16000 gave 2e-26
// at most.
TEST(ConstrainedLaw, ShowsDraftsThatAreDroppedForWhatTheyAre) {
  EXPECT_LT(PValueOf(Drafts::kDropped, true), 1e-5);
  EXPECT_LT(PValueOf(Drafts::kDropped, false, 16000), 1e-5);
}

}  // namespace
}  // namespace dspark::test

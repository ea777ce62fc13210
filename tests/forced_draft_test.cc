// Text that a constraint leaves no choice about, drafted: the law of replies and greedy replies stay what
// they are, and rounds are saved.
#include <gtest/gtest.h>

#include <map>

#include "chi_square.h"
#include "core/rng.h"
#include "draft/prompt_lookup.h"
#include "grammar/grammar_constraint.h"
#include "replies.h"
#include "sanitized.h"

namespace dspark::test {
namespace {

using Tokens = std::vector<int32_t>;

std::shared_ptr<const TokenTrie> TrieOf(const TinyModel& model) {
  return std::make_shared<TokenTrie>(*model.files.tokenizer, model.files.config.eos);
}

std::shared_ptr<const ByteGrammar> OneOf(const TokenTrie& trie, const std::vector<std::string>& texts) {
  GrammarBuilder builder(trie.single_bytes());
  return std::move(builder.Finish(builder.Texts(texts))).value();
}

// Allows one way to write what is forced: the wrong law of an engine that takes forced drafts unseen.
class OneSpelling : public GrammarConstraint {
 public:
  using GrammarConstraint::GrammarConstraint;
  std::unique_ptr<Constraint> Clone() const override { return std::make_unique<OneSpelling>(*this); }
  bool Allows(int32_t token) override {
    const Tokens forced = Forced(1);
    return forced.empty() ? GrammarConstraint::Allows(token) : token == forced[0];
  }
  void Mask(std::span<float> logits) override {
    GrammarConstraint::Mask(logits);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (!Allows(int32_t(i))) logits[i] = -INFINITY;
    }
  }
};

// Words that can be cut in many ways: in, on, er, ing and an are tokens beside the letters. Behind y "and" is
// forced, behind z "ander", behind x nothing.
const std::vector<std::string> kWords = {"xinginon", "xingeron", "xonin", "yander", "yandin", "zander"};

Request WordRequest(std::shared_ptr<const Constraint> constraint) {
  Request request;
  request.prompt = {30, 31, 32};
  request.max_tokens = 12;
  request.sampling.temperature = 5;  // no cut is rare
  request.constraint = std::move(constraint);
  return request;
}

// P of every way to write a word, by plain decoding.
void AddLaw(TinyModel& model, const Request& request, Constraint& constraint, double p,
            std::map<Tokens, double>* law, Tokens reply = {}) {
  if (constraint.Complete()) {
    (*law)[reply] = p;
    return;
  }
  Tokens text = request.prompt;
  text.insert(text.end(), reply.begin(), reply.end());
  KvTable kv(*model.blocks);
  EXPECT_TRUE(kv.Reserve(int(text.size())));
  const Segment segment{.tokens = text, .kv = &kv, .logits_from = int(text.size()) - 1};
  std::span<float> logits(model.target->Forward({&segment, 1}, {}).logits, size_t(model.vocab()));
  constraint.Mask(logits);
  Distribution served;
  ServedDistribution(model.target->isa(), logits, request.sampling, nullptr, &served);
  for (size_t i = 0; i < served.ids.size(); ++i) {
    if (served.probs[i] == 0) continue;
    constraint.Push(served.ids[i]);
    reply.push_back(served.ids[i]);
    AddLaw(model, request, constraint, p * double(served.probs[i]), law, reply);
    reply.pop_back();
    constraint.Pop();
  }
}

// Draws letters, unless free drafts are all that is wanted.
class Letters : public Drafter {
 public:
  explicit Letters(Tokens letters) : letters_(std::move(letters)) {}
  int max_tokens() const override { return 3; }
  bool runs_model() const override { return true; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      if (request.free_only) continue;
      for (int k = 0; k < std::min(request.max_tokens, 3); ++k) {
        std::vector<float> logits(letters_.size());
        request.sampler->Draw(letters_, logits, request.proposal);
      }
    }
  }

 private:
  const Tokens letters_;
};

struct Rig {
  std::vector<int64_t> counts;
  std::vector<double> law;
  int forced_kept = 0, drawn_kept = 0;
  double PValue() const { return ChiSquarePValue(counts, law); }
};

// Tells forced drafts from others.
class Kinds : public RoundObserver {
 public:
  explicit Kinds(Rig* rig) : rig_(rig) {}
  void OnRound(const RoundRecord& round) override {
    (round.origin == DraftOrigin::kForced ? rig_->forced_kept : rig_->drawn_kept) += round.accepted;
  }

 private:
  Rig* rig_;
};

// Replies of `served`, beside the law of `right`.
Rig Sample(const Constraint& right, const Constraint& served, bool draw) {
  TinyModel model;
  std::map<Tokens, double> law;
  const auto state = right.Clone();
  AddLaw(model, WordRequest(right.Clone()), *state, 1, &law);
  Letters letters(model.files.tokenizer->Encode("oeginx", false));
  Rig rig;
  Kinds kinds(&rig);
  Engine engine(*model.target, *model.blocks, draw ? &letters : nullptr, model.files.tokenizer.get(), {},
                {.max_sequences = 4, .fixed_draft = 4, .draft_forced = true, .observer = &kinds});
  std::map<Tokens, int64_t> counts;
  constexpr uint64_t kReplies = kSanitized ? 1500 : 6000;
  Request request = WordRequest(served.Clone());
  for (request.seed = 0; request.seed < kReplies; ++request.seed) EXPECT_TRUE(engine.Submit(request).ok());
  for (const auto& [id, reply] : RunAll(engine)) {
    if (!law.contains(reply.tokens)) return {{1}, {0}};
    ++counts[reply.tokens];
  }
  for (const auto& [tokens, p] : law) {
    rig.counts.push_back(counts[tokens]);
    rig.law.push_back(p);
  }
  return rig;
}

class ForcedLaw : public testing::Test {
 protected:
  TinyModel model_;
  const std::shared_ptr<const TokenTrie> trie_ = TrieOf(model_);
  const std::shared_ptr<const ByteGrammar> words_ = OneOf(*trie_, kWords);
};

TEST_F(ForcedLaw, IsPlainDecodings) {
  const GrammarConstraint words(words_, trie_);
  for (const bool draw : {false, true}) {
    const Rig rig = Sample(words, words, draw);
    EXPECT_GT(rig.law.size(), 25u);
    EXPECT_GT(rig.PValue(), 1e-4);
    EXPECT_GT(rig.forced_kept, 500);
    EXPECT_EQ(rig.drawn_kept > 100, draw);
  }
}

// A test with power: forced text that is always written as it was drafted does not pass.
TEST_F(ForcedLaw, ShowsDraftsThatAreTakenUnseen) {
  EXPECT_LT(Sample(GrammarConstraint(words_, trie_), OneSpelling(words_, trie_), false).PValue(), 1e-5);
}

// Long forced texts with choices between them.
std::shared_ptr<const Constraint> FormConstraint(const TinyModel& model) {
  const auto trie = TrieOf(model);
  GrammarBuilder b(trie->single_bytes());
  const auto letters = [&] { return b.Repeat(b.Range('a', 'z'), 1, 6); };
  const auto root = b.Sequence({b.Text("<person name="), letters(), b.Text(" street="), letters(),
                                b.Text(" nothing in here is to be chosen "),
                                b.Repeat(b.Range('0', '9'), 3, 3), b.Text(" and that is the end>")});
  return std::make_shared<GrammarConstraint>(std::move(b.Finish(root)).value(), trie);
}

Request FormRequest(const TinyModel& model, uint64_t seed, float temperature) {
  Request request;
  request.prompt = model.files.tokenizer->Encode("the form of number " + std::to_string(seed), false);
  request.max_tokens = 120;
  request.seed = seed;
  request.sampling.temperature = temperature;
  request.reproducible = true;
  request.constraint = FormConstraint(model);
  return request;
}

// Under every policy, with prompt lookup and with nothing else that drafts.
TEST(ForcedDrafts, SaveRoundsAndChangeNothing) {
  TinyModel model;
  PromptLookup lookup;
  for (const bool looks_up : {false, true}) {
    for (const EngineOptions& policy :
         {EngineOptions{}, {.fixed_draft = 4}, {.threshold = 0.3f}, {.zos = true}}) {
      EngineOptions options = policy;
      options.draft_forced = true;
      options.follow_costs = false;
      Engine engine(*model.target, *model.blocks, looks_up ? &lookup : nullptr, model.files.tokenizer.get(),
                    CheapRows(), options);
      int rounds = 0, committed = 0;
      for (const float temperature : {0.0f, 1.0f}) {
        for (uint64_t seed = 0; seed < 4; ++seed) {
          const Request request = FormRequest(model, seed, temperature);
          const Reply reply = RunOne(engine, request);
          EXPECT_EQ(reply.tokens, Plain(model, request).tokens);
          rounds += reply.stats.rounds;
          committed += reply.stats.committed;
        }
      }
      EXPECT_LT(rounds, 0.8 * committed);
    }
  }
}

TEST(ForcedDrafts, AreMadeOnlyWhereTheyAreAskedFor) {
  TinyModel model;
  PromptLookup lookup({.min_match = 30});
  Request request = FormRequest(model, 1, 0);
  Engine without(*model.target, *model.blocks, &lookup, model.files.tokenizer.get(), CheapRows(), {});
  EXPECT_EQ(RunOne(without, request).stats.drafted, 0);
  Engine with(*model.target, *model.blocks, &lookup, model.files.tokenizer.get(), CheapRows(),
              {.draft_forced = true});
  EXPECT_GT(RunOne(with, request).stats.accepted, 5);
  request.speculate = false;
  EXPECT_EQ(RunOne(with, request).stats.drafted, 0);
  request.speculate = true;
  request.constraint = nullptr;
  EXPECT_EQ(RunOne(with, request).stats.drafted, 0);
}

// A pool of a quarter of the need: sequences lose their blocks and are cancelled between drafts.
TEST(ForcedDrafts, SurvivePreemptionAndCancelling) {
  TinyModel model({.blocks = 20}), alone;
  PromptLookup lookup;
  Engine engine(*model.target, *model.blocks, &lookup, model.files.tokenizer.get(), CheapRows(),
                {.max_sequences = 10, .draft_forced = true, .prefix_cache = true});
  std::map<SequenceId, Request> requests;
  std::map<SequenceId, Reply> replies;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    const Request request = FormRequest(model, seed, float(seed % 2));
    requests[*engine.Submit(request)] = request;
  }
  for (int step = 1; !engine.Idle(); ++step) {
    if (step % 9 == 0) engine.Cancel(1 + step / 3);
    Collect(engine.Step(), &replies);
  }
  int cancelled = 0, accepted = 0;
  for (const auto& [id, reply] : replies) {
    Tokens plain = Plain(alone, requests[id]).tokens;
    if (reply.finish == FinishReason::kCancelled) {
      ++cancelled;
      ASSERT_LE(reply.tokens.size(), plain.size());
      plain.resize(reply.tokens.size());
    }
    EXPECT_EQ(reply.tokens, plain) << "request " << id;
    accepted += reply.stats.accepted;
  }
  EXPECT_EQ(replies.size(), requests.size());
  EXPECT_GT(cancelled, 1);
  EXPECT_GT(accepted, 100);
  EXPECT_GT(engine.load().preemptions, 5) << "blocks never ran out: the test shows nothing";
  EXPECT_EQ(engine.load().used_blocks, 0);
}

// A model that is always right, three drafts at a time.
class RightModel : public Drafter {
 public:
  explicit RightModel(Tokens reply) : reply_(std::move(reply)) {}
  int runs = 0;
  int max_tokens() const override { return 3; }
  bool runs_model() const override { return true; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void End(SequenceId) override {}
  void Observe(std::span<const ObservedRows> rows) override { committed_ += size_t(rows[0].committed); }
  void Propose(std::span<ProposeRequest> requests) override {
    if (requests[0].free_only) return;
    ++runs;
    for (size_t k = 0; k < 3 && int(k) < requests[0].max_tokens; ++k)
      requests[0].proposal->tokens.push_back(reply_[std::min(committed_ + k, reply_.size() - 1)]);
  }

 private:
  const Tokens reply_;
  size_t committed_ = 0;
};

TEST(ForcedDrafts, StandForADrafterThatWouldComeToLess) {
  TinyModel model;
  const auto trie = TrieOf(model);
  const auto grammar = OneOf(*trie, {"azzz"});
  Request request = WordRequest(std::make_shared<GrammarConstraint>(grammar, trie));
  request.sampling.temperature = 0;
  const Reply plain = Plain(model, request);
  EXPECT_EQ(plain.text, "azzz");
  for (const bool forced : {false, true}) {
    RightModel drafter(plain.tokens);
    Engine engine(*model.target, *model.blocks, &drafter, model.files.tokenizer.get(), CheapRows(),
                  {.fixed_draft = 3, .draft_forced = forced});
    const Reply reply = RunOne(engine, request);
    EXPECT_EQ(reply.tokens, plain.tokens);
    EXPECT_EQ(drafter.runs, forced ? 0 : 1);
    EXPECT_EQ(reply.stats.rounds, 1);
  }
}

}  // namespace
}  // namespace dspark::test

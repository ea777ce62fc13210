#include "eval/evaluate.h"

#include <algorithm>

namespace dspark {
namespace {

// One way of decoding, with what it came to so far.
struct Lane {
  Lane(const EvalSetting& s, Drafter* drafter, EngineOptions options, const DrafterTraits& traits)
      : log(traits.temperatures, traits.own) {
    options.max_sequences = s.concurrency;
    options.observer = &log;
    engine = std::make_unique<Engine>(s.target, s.blocks, drafter, s.tokenizer, s.costs, options);
  }
  RoundLog log;
  std::unique_ptr<Engine> engine;
  Speed speed;
};

struct CandidateLanes {
  std::unique_ptr<Lane> whole, served;  // served is null where whole blocks are the policy
  Lane& Served() { return served ? *served : *whole; }
};

CandidateLanes LanesOf(const EvalSetting& s, const Candidate& c) {
  EngineOptions whole = c.served;
  whole.threshold = 0;
  whole.fixed_draft = c.drafter->max_tokens();
  whole.accept_blocks = false;  // the paper's Table 1 judges every draft by itself
  CandidateLanes lanes;
  lanes.whole = std::make_unique<Lane>(s, c.drafter, whole, c.traits);
  const bool other_rule = c.served.accept_blocks && !s.rollout.sampling.Greedy();
  if (c.served.threshold > 0 || c.served.fixed_draft < whole.fixed_draft || other_rule)
    lanes.served = std::make_unique<Lane>(s, c.drafter, c.served, c.traits);
  return lanes;
}

class SuiteRun {
 public:
  SuiteRun(const EvalSetting& setting, const Suite& suite, std::span<const Candidate> candidates)
      : setting_(setting),
        suite_(suite),
        candidates_(candidates),
        plain_(setting, nullptr, {}, {}),
        results_(candidates.size()) {
    for (const Candidate& candidate : candidates) lanes_.push_back(LanesOf(setting, candidate));
    for (SuiteResult& result : results_) {
      result.suite = suite.name;
      result.domain = suite.domain;
      result.prompts = int(suite.prompts.size());
    }
  }

  // A few tokens that do not count: the first pass over weights and caches is slower than all others.
  Status WarmUp() {
    RolloutOptions brief = setting_.rollout;
    brief.max_tokens = 8;
    const auto run = RunGroup(*plain_.engine, setting_.encoder, setting_.target.limits().max_context,
                              std::span(suite_.prompts).first(1), 0, brief);
    return run ? Status() : run.error();
  }
  // Prompts `first` … `first` + `count` - 1, in every lane.
  Status Group(size_t first, size_t count);
  std::vector<SuiteResult> Finish();

 private:
  Result<GroupRun> Answer(Lane& lane, size_t first, size_t count) {
    DSPARK_ASSIGN_OR_RETURN(
        GroupRun run, RunGroup(*lane.engine, setting_.encoder, setting_.target.limits().max_context,
                               std::span(suite_.prompts).subspan(first, count), first, setting_.rollout));
    lane.speed.tokens += run.tokens;
    lane.speed.ms += run.ms;
    return run;
  }
  void Compare(const GroupRun& plain, const GroupRun& run, SuiteResult* result) const;

  const EvalSetting& setting_;
  const Suite& suite_;
  const std::span<const Candidate> candidates_;
  Lane plain_;
  std::vector<CandidateLanes> lanes_;
  std::vector<SuiteResult> results_;
};

void SuiteRun::Compare(const GroupRun& plain, const GroupRun& run, SuiteResult* result) const {
  if (!setting_.rollout.sampling.Greedy()) return;
  for (size_t i = 0; i < plain.rollouts.size(); ++i) {
    const auto &expected = plain.rollouts[i].answers, &answers = run.rollouts[i].answers;
    const size_t turns = std::max(expected.size(), answers.size());
    for (size_t t = 0; t < turns; ++t)
      result->different += t >= answers.size() || t >= expected.size() || answers[t] != expected[t];
  }
}

Status SuiteRun::Group(size_t first, size_t count) {
  DSPARK_ASSIGN_OR_RETURN(const GroupRun plain, Answer(plain_, first, count));
  for (size_t c = 0; c < lanes_.size(); ++c) {
    SuiteResult& result = results_[c];
    DSPARK_ASSIGN_OR_RETURN(GroupRun run, Answer(*lanes_[c].whole, first, count));
    Compare(plain, run, &result);
    if (lanes_[c].served) {
      DSPARK_ASSIGN_OR_RETURN(run, Answer(*lanes_[c].served, first, count));
      Compare(plain, run, &result);
    }
    for (const Rollout& rollout : plain.rollouts) {
      result.answers += int(rollout.answers.size());
      result.cut += rollout.cut;
    }
    if (plain.tokens > 0 && run.tokens > 0)
      result.ratios.push_back(double(run.tokens) / run.ms / (double(plain.tokens) / plain.ms));
  }
  return {};
}

std::vector<SuiteResult> SuiteRun::Finish() {
  for (size_t c = 0; c < lanes_.size(); ++c) {
    SuiteResult& result = results_[c];
    result.whole = lanes_[c].whole->log.acceptance();
    if (candidates_[c].traits.with_lookup) result.whole_lookup = lanes_[c].whole->log.looked_up();
    result.confidence = lanes_[c].whole->log.confidence();
    result.without_confidence = lanes_[c].whole->log.without_confidence();
    result.served = lanes_[c].Served().log.acceptance();
    result.plain = plain_.speed;
    result.speculative = lanes_[c].Served().speed;
  }
  return std::move(results_);
}

}  // namespace

Result<std::vector<SuiteResult>> EvaluateSuite(const EvalSetting& setting, const Suite& suite,
                                               std::span<const Candidate> candidates,
                                               FunctionRef<void(int done)> progress) {
  SuiteRun run(setting, suite, candidates);
  DSPARK_RETURN_IF_ERROR(run.WarmUp());
  const size_t prompts = suite.prompts.size(), together = size_t(setting.concurrency);
  for (size_t first = 0; first < prompts; first += together) {
    DSPARK_RETURN_IF_ERROR(run.Group(first, std::min(together, prompts - first)));
    progress(int(std::min(first + together, prompts)));
  }
  return run.Finish();
}

}  // namespace dspark

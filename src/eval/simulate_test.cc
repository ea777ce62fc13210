// The simulated server against closed forms, on costs so simple that there are some.
#include "eval/simulate.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

constexpr double kPass = 10;  // ms of any pass

ServingProfile Flat() {
  return {.costs = CostTable({{1, kPass}, {512, kPass}}), .logit_rows = 512, .shapes = {{1, 21}}};
}

EngineOptions Options(int sequences, int fixed = 0) {
  EngineOptions options;
  options.max_sequences = sequences;
  options.fixed_draft = fixed;
  return options;
}

LoadFigures Closed(const ServingProfile& profile, const EngineOptions& options, bool speculate,
                   int requests = 64) {
  const LoadRun run = Simulate(profile, options, speculate,
                               {.arrivals = BackToBack(requests), .concurrency = options.max_sequences});
  return FiguresOf({&run, 1});
}

// Plain decoding of n streams: n tokens a pass.
TEST(Simulate, PlainThroughputIsStreamsPerPass) {
  for (const int streams : {1, 4, 16}) {
    const LoadFigures f = Closed(Flat(), Options(streams), false);
    EXPECT_NEAR(f.tok_per_s, streams * 1000 / kPass, 0.02 * streams * 1000 / kPass) << streams;
    EXPECT_NEAR(f.user_tok_per_s, 1000 / kPass, 1e-6) << streams;
    EXPECT_NEAR(f.ttft_ms.p50, kPass, 1e-6) << streams;
    EXPECT_NEAR(f.scheduling, 0, 1e-9);
  }
}

// Overhead and prompts take the time that the profile says: a reply of 5 tokens takes 5 passes of 10 + 2 ms,
// the first with 9 rows of prompt beside the one that gives the token.
TEST(Simulate, OverheadAndPromptsAreCharged) {
  ServingProfile profile = Flat();
  profile.overhead_ms = {{{1, 2.0}}};
  profile.prompt_ms_per_row = 0.5;
  profile.shapes = {{10, 5}};
  const LoadFigures f = Closed(profile, Options(1), false, 100);
  EXPECT_NEAR(f.ttft_ms.p50, 12 + 9 * 0.5, 1e-6);
  EXPECT_NEAR(f.user_tok_per_s, 1000 / 12.0, 1e-6);
  EXPECT_NEAR(f.tok_per_s, 5 * 1000 / (5 * 12 + 4.5), 0.5);
}

// Two drafts of which the record kept both, then one of which it kept none: 3 + 1 tokens in two rounds.
ServingProfile WithRecord(int match_length) {
  ServingProfile profile = Flat();
  profile.replies = {{{.drafts = 2, .kept = 2, .match_length = match_length, .committed = 3},
                      {.drafts = 1, .kept = 0, .match_length = match_length, .committed = 1}}};
  profile.shapes = {{1, 401}};
  return profile;
}

TEST(Simulate, RecordedDraftsAreKeptAsTheyWere) {
  const LoadFigures f = Closed(WithRecord(6), Options(1, 7), true, 8);
  EXPECT_NEAR(f.tau, 2, 0.02);
  EXPECT_NEAR(f.verify_length, 1.5, 0.02);
  EXPECT_NEAR(f.acceptance, 2.0 / 3, 0.02);
  EXPECT_NEAR(f.tok_per_s, 200, 4);
}

// A policy that verifies fewer drafts than were recorded meets the rest of a round as a round of its own.
TEST(Simulate, ShorterLengthsSeeTheRestOfARound) {
  const LoadFigures f = Closed(WithRecord(6), Options(1, 1), true, 8);
  // x x | x, each of one kept draft and one more token of the record's four: (2 tokens), (1, nothing drafted
  // or lost), (1): τ = 4 / 3.
  EXPECT_NEAR(f.tau, 4.0 / 3, 0.02);
}

// The drafter's own time is charged once a round for all sequences.
TEST(Simulate, DraftsOfAModelCostTime) {
  ServingProfile profile = WithRecord(0);
  profile.draft_ms = {{{1, 10.0}}};
  const LoadFigures f = Closed(profile, Options(1, 7), true, 8);
  EXPECT_NEAR(f.tok_per_s, 100, 2);
  EXPECT_NEAR(f.drafting, 0.5, 0.01);
}

// Free rows and good drafts: the adaptive scheduler speculates. Dear rows: it parks, and is as fast as plain.
TEST(Simulate, TheAdaptivePolicyIsTheEngines) {
  EngineOptions adaptive = Options(4, -1);
  const LoadFigures fast = Closed(WithRecord(6), adaptive, true, 16);
  EXPECT_GT(fast.tau, 1.8);
  ServingProfile dear = WithRecord(6);
  dear.costs = CostTable({{1, kPass}, {512, 512 * kPass}});
  const LoadFigures parked = Closed(dear, adaptive, true, 16), plain = Closed(dear, Options(4), false, 16);
  EXPECT_GT(parked.tok_per_s, 0.97 * plain.tok_per_s);
  EXPECT_LT(parked.verify_length, 0.1);
}

// M/D/1: one place, Poisson arrivals, service D; the mean wait in the queue is ρD / 2(1 - ρ).
TEST(Simulate, OneServerQueuesAsTheoryHasIt) {
  ServingProfile profile = Flat();
  profile.shapes = {{1, 10}};                  // D = 100 ms
  constexpr double kService = 100, kRate = 6;  // ρ = 0.6
  const LoadRun run = Simulate(profile, Options(1), false, {.arrivals = PoissonArrivals(kRate, 4000, 3)});
  double wait = 0;
  for (const ReplyTimes& reply : run.replies) wait += reply.first_ms - kPass - reply.due_ms;
  const double rho = kRate * kService / 1000;
  EXPECT_NEAR(wait / double(run.replies.size()), rho * kService / (2 * (1 - rho)), 6);
}

TEST(Simulate, ALoadIsTheSameEveryTime) {
  const auto speed = [] { return Closed(WithRecord(6), Options(4, -1), true).tok_per_s; };
  EXPECT_EQ(speed(), speed());
}

}  // namespace
}  // namespace dspark

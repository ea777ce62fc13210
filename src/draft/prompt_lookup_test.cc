#include "draft/prompt_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/rng.h"

namespace dspark {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr SequenceId kSequence = 7;
const PromptLookupOptions kExact{.max_tokens = 8, .min_match = 2, .max_match = 12, .max_probes = 1 << 30};

Proposal ProposeFor(PromptLookup& lookup, SequenceId sequence, int max_tokens = 1000) {
  Proposal proposal;
  ProposeRequest request{sequence, max_tokens, &proposal};
  lookup.Propose({&request, 1});
  return proposal;
}

void Append(PromptLookup& lookup, SequenceId sequence, const std::vector<int32_t>& tokens) {
  const ObservedRows rows{.sequence = sequence, .next = tokens, .committed = int(tokens.size())};
  lookup.Observe({&rows, 1});
}

Proposal ProposeAfter(const std::vector<int32_t>& text, const PromptLookupOptions& options = kExact) {
  PromptLookup lookup(options);
  lookup.Begin(kSequence, text);
  return ProposeFor(lookup, kSequence);
}

// How many tokens before `end` equal the last ones of the text.
int CommonSuffix(const std::vector<int32_t>& text, int end) {
  int length = 0;
  while (length < end && text[size_t(end - length - 1)] == text[text.size() - size_t(length) - 1]) ++length;
  return length;
}

// The definition: every earlier end, the longest match, the most recent of them.
Proposal Brute(const std::vector<int32_t>& text, const PromptLookupOptions& options) {
  Proposal proposal;
  int best_end = 0;
  for (int end = 1; end < int(text.size()); ++end) {
    const int length = std::min(CommonSuffix(text, end), options.max_match);
    if (length < options.min_match || length < proposal.match_length) continue;
    proposal.match_length = length;
    best_end = end;
  }
  if (proposal.match_length == 0) return proposal;
  std::vector<int32_t> extended = text;
  for (int i = 0; i < options.max_tokens; ++i) extended.push_back(extended[size_t(best_end + i)]);
  proposal.tokens.assign(extended.begin() + int(text.size()), extended.end());
  return proposal;
}

TEST(PromptLookup, CopiesWhatFollowed) {
  const Proposal proposal =
      ProposeAfter({1, 2, 3, 4, 5, 6, 9, 9, 1, 2, 3}, {.max_tokens = 3, .min_match = 2});
  EXPECT_THAT(proposal.tokens, ElementsAre(4, 5, 6));
  EXPECT_EQ(proposal.match_length, 3);
  EXPECT_FALSE(proposal.sampled());
  EXPECT_THAT(proposal.confidence, IsEmpty());
}

TEST(PromptLookup, TheLongestMatchWinsOverTheMostRecent) {
  EXPECT_EQ(ProposeAfter({1, 2, 3, 50, 0, 2, 3, 60, 1, 2, 3}).tokens[0], 50);
}

TEST(PromptLookup, TheMostRecentWinsAmongEquals) {
  EXPECT_EQ(ProposeAfter({0, 2, 3, 50, 1, 2, 3, 60, 4, 2, 3}).tokens[0], 60);
}

TEST(PromptLookup, ProposesNothingWithoutAMatch) {
  EXPECT_EQ(ProposeAfter({}).size(), 0);
  EXPECT_EQ(ProposeAfter({5}).size(), 0);
  EXPECT_EQ(ProposeAfter({5, 5}).size(), 0);  // shorter than min_match
  EXPECT_EQ(ProposeAfter({1, 2, 3, 4}).size(), 0);
  EXPECT_EQ(ProposeAfter({1, 2, 3, 4}).match_length, 0);
  EXPECT_EQ(ProposeAfter({4, 1, 2, 4}).size(), 0);
}

TEST(PromptLookup, ContinuesPeriodicText) {
  EXPECT_THAT(ProposeAfter({1, 2, 1, 2, 1, 2}).tokens, ElementsAre(1, 2, 1, 2, 1, 2, 1, 2));
  EXPECT_THAT(ProposeAfter({9, 3, 3, 3, 3}).tokens, ElementsAre(3, 3, 3, 3, 3, 3, 3, 3));
  EXPECT_THAT(ProposeAfter({1, 2, 3, 1, 2, 3, 1}).tokens, ElementsAre(2, 3, 1, 2, 3, 1, 2, 3));
  const std::vector<int32_t> long_run(5000, 4);
  EXPECT_EQ(ProposeAfter(long_run).match_length, kExact.max_match);
}

TEST(PromptLookup, KeepsToTheLimits) {
  const std::vector<int32_t> text = {1, 2, 3, 4, 5, 6, 7, 1, 2, 3};
  PromptLookup lookup({.max_tokens = 4, .min_match = 2});
  lookup.Begin(kSequence, text);
  EXPECT_EQ(lookup.max_tokens(), 4);
  EXPECT_THAT(ProposeFor(lookup, kSequence, 100).tokens, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(ProposeFor(lookup, kSequence, 2).tokens, ElementsAre(4, 5));
  EXPECT_THAT(ProposeFor(lookup, kSequence, 0).tokens, IsEmpty());
  EXPECT_THAT(ProposeFor(lookup, kSequence, -1).tokens, IsEmpty());
}

std::vector<int32_t> RandomText(int length, int alphabet, uint64_t seed) {
  std::vector<int32_t> text;
  for (uint64_t i = 0; int(i) < length; ++i) {
    text.push_back(int32_t(UniformDouble(seed, i, Purpose::kTest) * alphabet));
  }
  return text;
}

// Texts of few letters, committed in uneven steps, against the definition at every step.
TEST(PromptLookup, EqualsTheDefinitionOnRandomText) {
  for (int alphabet : {1, 2, 3, 5, 20}) {
    for (int min_match : {1, 2, 3, 5}) {
      for (uint64_t seed = 0; seed < 4; ++seed) {
        PromptLookupOptions options = kExact;
        options.min_match = min_match;
        options.max_match = min_match + int(seed) * 4;
        const std::vector<int32_t> all = RandomText(300, alphabet, seed * 100 + uint64_t(alphabet));
        PromptLookup lookup(options);
        std::vector<int32_t> text(all.begin(), all.begin() + int(seed) * 7);
        lookup.Begin(kSequence, text);
        while (true) {
          const Proposal got = ProposeFor(lookup, kSequence), wanted = Brute(text, options);
          ASSERT_EQ(got.match_length, wanted.match_length) << text.size();
          ASSERT_EQ(got.tokens, wanted.tokens) << text.size();
          const size_t step = 1 + text.size() % 4;
          if (text.size() + step > all.size()) break;
          const std::vector<int32_t> next(all.begin() + int(text.size()),
                                          all.begin() + int(text.size() + step));
          Append(lookup, kSequence, next);
          text.insert(text.end(), next.begin(), next.end());
        }
      }
    }
  }
}

// With bounded probing the match may be shorter than the longest, but it is a match, and nearly always the
// longest.
TEST(PromptLookup, BoundedSearchFindsTrueMatchesInLongText) {
  PromptLookupOptions options{.max_tokens = 8, .min_match = 3, .max_match = 16, .max_probes = 64};
  std::vector<int32_t> text = RandomText(20000, 40, 5);
  PromptLookup lookup(options);
  lookup.Begin(kSequence, text);
  int longest = 0, tried = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    // Half of the time the text goes on with a copy of an earlier piece.
    const size_t from = size_t(UniformDouble(6, i, Purpose::kTest) * 19000);
    std::vector<int32_t> next(text.begin() + int(from), text.begin() + int(from) + 1 + int(i % 12));
    if (i % 2) next = RandomText(2, 40, i);
    Append(lookup, kSequence, next);
    text.insert(text.end(), next.begin(), next.end());
    const Proposal got = ProposeFor(lookup, kSequence), wanted = Brute(text, options);
    ASSERT_LE(got.match_length, wanted.match_length);
    ASSERT_EQ(got.size() > 0, wanted.size() > 0);
    tried += wanted.size() > 0;
    longest += wanted.size() > 0 && got.tokens == wanted.tokens;
  }
  EXPECT_GT(tried, 150);
  EXPECT_GE(longest, tried * 95 / 100);
}

TEST(PromptLookup, VeryLongContexts) {
  std::vector<int32_t> text(1 << 20);
  std::iota(text.begin(), text.end(), 0);
  PromptLookup lookup({.max_tokens = 5});
  lookup.Begin(kSequence, text);
  for (int32_t start : {0, 1000, 1 << 19, (1 << 20) - 100}) {
    Append(lookup, kSequence, {start, start + 1, start + 2, start + 3});
    const Proposal proposal = ProposeFor(lookup, kSequence);
    EXPECT_EQ(proposal.match_length, 4);
    EXPECT_THAT(proposal.tokens, ElementsAre(start + 4, start + 5, start + 6, start + 7, start + 8));
  }
}

TEST(PromptLookup, SequencesDoNotSeeEachOther) {
  PromptLookup lookup(kExact);
  lookup.Begin(1, std::vector<int32_t>{1, 2, 3, 1, 2});
  lookup.Begin(2, std::vector<int32_t>{1, 2, 4, 1, 2});
  lookup.Begin(3, std::vector<int32_t>{1, 2});
  Proposal proposals[3];
  ProposeRequest requests[] = {{1, 1, &proposals[0]}, {2, 1, &proposals[1]}, {3, 1, &proposals[2]}};
  lookup.Propose(requests);
  EXPECT_THAT(proposals[0].tokens, ElementsAre(3));
  EXPECT_THAT(proposals[1].tokens, ElementsAre(4));
  EXPECT_THAT(proposals[2].tokens, IsEmpty());

  const std::vector<int32_t> one = {3, 8}, two = {4, 1, 2, 4};
  const ObservedRows rows[] = {{.sequence = 1, .next = one, .committed = int(one.size())},
                               {.sequence = 2, .next = two, .committed = int(two.size())}};
  lookup.Observe(rows);
  EXPECT_EQ(ProposeFor(lookup, 1).size(), 0);
  EXPECT_EQ(ProposeFor(lookup, 2).match_length, 6);
}

TEST(PromptLookup, EndedSequencesAreForgotten) {
  PromptLookup lookup(kExact);
  lookup.Begin(1, RandomText(3000, 3, 1));
  lookup.End(1);
  lookup.Begin(2, std::vector<int32_t>{0, 1, 2});
  EXPECT_EQ(ProposeFor(lookup, 2).size(), 0);
  lookup.Begin(2, std::vector<int32_t>{5, 6, 7, 5, 6});  // anew
  EXPECT_EQ(ProposeFor(lookup, 2).tokens[0], 7);
  lookup.End(2);
}

TEST(PromptLookupDeath, UnknownSequencesAreBugs) {
  PromptLookup lookup;
  EXPECT_DEATH(ProposeFor(lookup, 1), "check failed");
  EXPECT_DEATH(lookup.End(1), "check failed");
}

}  // namespace
}  // namespace dspark

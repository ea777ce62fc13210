#include "draft/ngram_table.h"

#include <gtest/gtest.h>

#include "core/token_hash.h"
#include "temp_dir.h"

namespace dspark {
namespace {

NgramEntry Entry(const std::vector<int32_t>& context, int32_t token, int level) {
  uint64_t hash = kEmptyContextHash;
  for (size_t k = context.size(); k-- > 0;) hash = HashTokens(hash, {&context[k], 1});
  return {hash, token, uint8_t(level)};
}

struct Table {
  explicit Table(const std::vector<NgramEntry>& entries, const NgramTableOptions& options = {}) {
    const std::string path = dir.path() + "/t.gguf";
    const NgramConfig config{
        .order = 3, .vocab = 100, .target_width = 8, .target_layers = 2, .vocabulary = {}};
    EXPECT_TRUE(WriteNgramFile(config, entries, path).ok());
    drafter = std::make_unique<NgramTable>(*NgramFile::Open(path), options);
  }
  Proposal Propose(SequenceId sequence, int max_tokens) {
    Proposal proposal;
    ProposeRequest request{.sequence = sequence, .max_tokens = max_tokens, .proposal = &proposal};
    drafter->Propose({&request, 1});
    return proposal;
  }
  test::TempDir dir;
  std::unique_ptr<NgramTable> drafter;
};

using Tokens = std::vector<int32_t>;

TEST(NgramTable, DraftsFromTheLongestContextAndItsOwnDrafts) {
  Table table({Entry({1}, 2, 204), Entry({2}, 3, 255), Entry({1, 2}, 4, 102), Entry({9, 1, 2}, 5, 51)});
  table.drafter->Begin(1, Tokens{7, 7, 1});
  const Proposal proposal = table.Propose(1, 8);
  // [1] → 2; [1 2] → 4, not [2] → 3; nothing is known behind 4.
  EXPECT_EQ(proposal.tokens, (Tokens{2, 4}));
  ASSERT_EQ(proposal.confidence.size(), 2u);
  EXPECT_FLOAT_EQ(proposal.confidence[0], 0.8f);
  EXPECT_FLOAT_EQ(proposal.confidence[1], 0.4f);
  EXPECT_EQ(proposal.origin, DraftOrigin::kTable);
  EXPECT_EQ(proposal.match_length, 0);
  EXPECT_FALSE(proposal.sampled());
  EXPECT_EQ(table.Propose(1, 1).tokens, (Tokens{2}));
  EXPECT_EQ(table.Propose(1, 0).tokens, Tokens());
  table.drafter->Begin(1, Tokens{9, 1});
  EXPECT_EQ(table.Propose(1, 8).tokens, (Tokens{2, 5})) << "a shorter prompt, a longer context";
}

TEST(NgramTable, FollowsTheTextOfEverySequence) {
  Table table({Entry({1}, 2, 200), Entry({3}, 4, 200), Entry({8, 3}, 6, 200)});
  table.drafter->Begin(1, Tokens{1});
  table.drafter->Begin(2, Tokens{5});
  EXPECT_EQ(table.Propose(2, 4).tokens, Tokens());
  const Tokens next = {1, 8, 3};  // 1 is the prompt's
  const ObservedRows rows{.sequence = 2, .position = 0, .next = next, .committed = 2};
  table.drafter->Observe({&rows, 1});
  EXPECT_EQ(table.Propose(2, 4).tokens, (Tokens{6}));
  EXPECT_EQ(table.Propose(1, 4).tokens, (Tokens{2}));
  table.drafter->End(2);
  table.drafter->Begin(2, Tokens{3});
  EXPECT_EQ(table.Propose(2, 4).tokens, (Tokens{4})) << "of the earlier sequence nothing is left";
}

TEST(NgramTable, EndsWhereDraftsAreUnlikelyAllTogether) {
  const std::vector<NgramEntry> circle = {Entry({1}, 1, 128)};
  Table table(circle, {.max_tokens = 12, .least_cumulative = 0.1f});
  table.drafter->Begin(1, Tokens{1});
  EXPECT_EQ(table.Propose(1, 20).tokens, Tokens(3, 1));  // 0.5³ = 0.126
  Table sure({Entry({1}, 1, 255)}, {.max_tokens = 12, .least_cumulative = 0.1f});
  sure.drafter->Begin(1, Tokens{1});
  EXPECT_EQ(sure.Propose(1, 20).tokens, Tokens(12, 1));
  EXPECT_EQ(sure.drafter->max_tokens(), 12);
}

}  // namespace
}  // namespace dspark

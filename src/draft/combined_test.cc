#include "draft/combined.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

// Proposes the same whenever it is asked, and remembers what it was asked.
class Source : public Drafter {
 public:
  Source(std::vector<int32_t> tokens, int match_length)
      : tokens_(std::move(tokens)), match_length_(match_length) {}
  std::vector<ProposeRequest> asked;

  int max_tokens() const override { return int(tokens_.size()); }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      asked.push_back(request);
      request.proposal->tokens.insert(request.proposal->tokens.end(), tokens_.begin(), tokens_.end());
      request.proposal->match_length = match_length_;
    }
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}

 private:
  const std::vector<int32_t> tokens_;
  const int match_length_;
};

struct Both {
  explicit Both(int match_length)
      : lookup(new Source({1, 2, 3, 4}, match_length)),
        model(new Source({7, 8}, 0)),
        drafter(std::unique_ptr<Drafter>(lookup), std::unique_ptr<Drafter>(model)) {}
  Proposal Propose(bool free_only) {
    Proposal proposal;
    ProposeRequest request{.sequence = 1, .max_tokens = 4, .proposal = &proposal, .free_only = free_only};
    drafter.Propose({&request, 1});
    return proposal;
  }
  Source *lookup, *model;
  CombinedDrafter drafter;
};

// A copy that matched too little leaves nothing in the proposal, its length of match included.
TEST(CombinedDrafter, TheModelReplacesAShortMatch) {
  for (const int match_length : {0, 3, CombinedDrafter::kLongMatch - 1}) {
    Both both(match_length);
    const Proposal proposal = both.Propose(/*free_only=*/false);
    EXPECT_EQ(proposal.tokens, (std::vector<int32_t>{7, 8}));
    EXPECT_EQ(proposal.match_length, 0);
    ASSERT_EQ(both.model->asked.size(), 1u);
    EXPECT_EQ(both.model->asked[0].max_tokens, 2);
  }
}

TEST(CombinedDrafter, TheModelIsNotRunBehindALongMatchNorWhereOnlyCopiesAreFree) {
  for (const bool free_only : {false, true}) {
    Both both(free_only ? 3 : CombinedDrafter::kLongMatch);
    const Proposal proposal = both.Propose(free_only);
    EXPECT_EQ(proposal.tokens, (std::vector<int32_t>{1, 2, 3, 4}));
    EXPECT_GT(proposal.match_length, 0);
    EXPECT_TRUE(both.model->asked.empty());
  }
}

}  // namespace
}  // namespace dspark

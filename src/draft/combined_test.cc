#include "draft/combined.h"

#include <gtest/gtest.h>

namespace dspark {
namespace {

using Tokens = std::vector<int32_t>;

// Proposes the same whenever it is asked, and remembers what it was asked.
class Source : public Drafter {
 public:
  Source(Tokens tokens, DraftOrigin origin, bool model = false)
      : tokens_(std::move(tokens)), origin_(origin), model_(model) {}
  std::vector<ProposeRequest> asked;

  int max_tokens() const override { return int(tokens_.size()); }
  bool runs_model() const override { return model_; }
  size_t weight_bytes() const override { return 5; }
  void Begin(SequenceId, std::span<const int32_t>) override {}
  void Propose(std::span<ProposeRequest> requests) override {
    for (const ProposeRequest& request : requests) {
      asked.push_back(request);
      request.proposal->tokens.insert(request.proposal->tokens.end(), tokens_.begin(), tokens_.end());
      request.proposal->origin = origin_;
      if (origin_ == DraftOrigin::kLookup) request.proposal->match_length = 6;
      if (origin_ == DraftOrigin::kTable) request.proposal->confidence.assign(tokens_.size(), 0.5f);
    }
  }
  void Observe(std::span<const ObservedRows>) override {}
  void End(SequenceId) override {}

 private:
  const Tokens tokens_;
  const DraftOrigin origin_;
  const bool model_;
};

// Finds drafts of one origin worth what it is told to, and remembers what it was shown.
class Judge : public DraftJudge {
 public:
  explicit Judge(double lookup, double table) : lookup_(lookup), table_(table) {}
  std::vector<DraftOrigin> shown;
  double Weigh(const Proposal& proposal) override {
    shown.push_back(proposal.origin);
    return proposal.origin == DraftOrigin::kLookup ? lookup_ : table_;
  }

 private:
  const double lookup_, table_;
};

struct All {
  explicit All(Tokens copied = {1, 2, 3, 4}, bool with_model = true)
      : lookup(new Source(std::move(copied), DraftOrigin::kLookup)),
        table(new Source({5, 6, 7}, DraftOrigin::kTable)),
        model(with_model ? new Source({8, 9}, DraftOrigin::kModel, true) : nullptr),
        drafter(Free(), std::unique_ptr<Drafter>(model)) {}
  std::vector<std::unique_ptr<Drafter>> Free() const {
    std::vector<std::unique_ptr<Drafter>> free;
    free.emplace_back(lookup);
    free.emplace_back(table);
    return free;
  }
  Proposal Propose(bool free_only, DraftJudge* judge = nullptr) {
    Proposal proposal;
    ProposeRequest request{
        .sequence = 1, .max_tokens = 4, .proposal = &proposal, .judge = judge, .free_only = free_only};
    drafter.Propose({&request, 1});
    return proposal;
  }
  Source *lookup, *table, *model;
  CombinedDrafter drafter;
};

TEST(CombinedDrafter, OfFreeSourcesTheJudgesFavouriteProposes) {
  for (const bool copy : {true, false}) {
    All all;
    Judge judge(copy ? 2 : 1, copy ? 1 : 2);
    const Proposal proposal = all.Propose(/*free_only=*/true, &judge);
    EXPECT_EQ(proposal.tokens, copy ? Tokens({1, 2, 3, 4}) : Tokens({5, 6, 7}));
    EXPECT_EQ(proposal.origin, copy ? DraftOrigin::kLookup : DraftOrigin::kTable);
    EXPECT_EQ(proposal.match_length, copy ? 6 : 0) << "nothing of the other is left";
    EXPECT_EQ(proposal.confidence.size(), copy ? 0u : 3u);
    EXPECT_EQ(judge.shown, (std::vector{DraftOrigin::kLookup, DraftOrigin::kTable})) << "it sees both";
    EXPECT_TRUE(all.model->asked.empty());
  }
}

TEST(CombinedDrafter, WithoutAJudgeConfidencesAndMatchesDecide) {
  All all;
  EXPECT_EQ(all.Propose(true).origin, DraftOrigin::kLookup);  // 6 / 3 of 4 against 7/8
  All silent(Tokens{});
  EXPECT_EQ(silent.Propose(true).origin, DraftOrigin::kTable);
}

TEST(CombinedDrafter, TheModelAloneAnswersWhereItIsAsked) {
  All all;
  Judge judge(9, 9);
  const Proposal proposal = all.Propose(/*free_only=*/false, &judge);
  EXPECT_EQ(proposal.tokens, (Tokens{8, 9}));
  EXPECT_EQ(proposal.origin, DraftOrigin::kModel);
  EXPECT_EQ(all.model->asked.at(0).max_tokens, 2);
  EXPECT_TRUE(all.lookup->asked.empty() && judge.shown.empty());
  EXPECT_TRUE(all.drafter.runs_model() && all.drafter.has_free_drafts());
  EXPECT_EQ(all.drafter.weight_bytes(), 15u);
  All free({1, 2, 3, 4}, /*with_model=*/false);
  EXPECT_FALSE(free.drafter.runs_model());
  EXPECT_EQ(free.Propose(/*free_only=*/false, &judge).size(), 4);
}

}  // namespace
}  // namespace dspark

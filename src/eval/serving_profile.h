// What a server's steps cost and what its drafts came to, as `dspark bench serve --json` records it: all that
// a simulation of another load, or of another machine, needs.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"
#include "engine/engine.h"

namespace dspark {

// Proposals as they were made and verified whole.
struct RecordedRound {
  int drafts = 0, kept = 0;
  int match_length = 0;                // as Proposal's; -1: a counted table or a constraint did
  int committed = 0;                   // tokens, at least 1
  std::vector<float> confidence = {};  // of the drafts, or empty
};

// Of one reply, in order.
using RecordedReply = std::vector<RecordedRound>;

// Tokens of a prompt and of the reply to it.
struct ReplyShape {
  int prompt_tokens = 1, tokens = 1;
};

// A piecewise linear function of a number of rows or sequences; constant before its first point, in
// proportion from its last on. Without points 0.
struct CostCurve {
  std::vector<std::pair<int, double>> points = {};  // by increasing x
  double At(int x) const;
};

struct ServingProfile {
  CostTable costs = {};          // of passes by rows, as they were in service
  double prompt_ms_per_row = 0;  // what a row of a prompt adds to a pass
  CostCurve draft_ms = {};       // a proposing call of a drafter's model, by sequences
  CostCurve overhead_ms = {};    // of a step beside pass and drafter, by sequences
  int logit_rows = 64;           // rows with logits of one pass
  int prefill_rows = 256;        // rows of prompts of one step
  std::vector<RecordedReply> replies = {};
  std::vector<ReplyShape> shapes = {};   // that replies had
  std::string model = {}, drafter = {};  // for people, of the report that holds it; empty: it stands alone
};

// Sums up what steps cost, for a profile.
class ProfileRecorder {
 public:
  // `ms` between the ends of this step and the one before, where both belong together.
  void AddStep(const Engine::StepCost& cost, double ms);
  // `measured`: the table of the start, for widths that no step had.
  ServingProfile Profile(const CostTable& measured) const;

 private:
  struct Mean {
    double ms = 0, x = 0;
    int count = 0;
    void Add(double at, double value) { ms += value, x += at, ++count; }
  };
  static CostCurve CurveOf(const std::map<int, Mean>& means);
  std::map<int, Mean> pass_, draft_, overhead_;  // by WidthClass
  // Steps with rows of prompts: their decoding rows, and rows and milliseconds in all.
  struct Mixed {
    int decoding, prompt;
    double ms;
  };
  std::vector<Mixed> mixed_;
};

// Collects the rounds of replies: of a policy that verifies whole proposals.
class RoundRecorder {
 public:
  explicit RoundRecorder(size_t most) : most_(most) {}
  void OnRound(const RoundRecord& round);
  // What was collected; sequences' numbers may begin anew.
  std::vector<RecordedReply> Take();

 private:
  const size_t most_;  // replies kept
  std::map<SequenceId, RecordedReply> replies_;
};

nlohmann::json ToJson(const ServingProfile& profile);
// The file is what ToJson wrote, or has it under the key "profile". Error: the file, and what is wrong there.
Result<ServingProfile> ReadProfile(const std::string& path);

}  // namespace dspark

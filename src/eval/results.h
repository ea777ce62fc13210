// What an evaluation found, and the figures taken from it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "draft/proposal.h"
#include "eval/acceptance.h"
#include "eval/calibration.h"

namespace dspark {

// What drafters are compared by.
struct DrafterTraits {
  std::string kind;  // "DSpark (vanilla)", "DFlash", "Eagle3", "MTP", "prompt lookup", "counted table"
  int layers = 0;    // 0: no model
  int block = 0;     // drafts of one round at most
  bool with_lookup = false;               // prompt lookup or a counted table drafts too
  DraftOrigin own = DraftOrigin::kModel;  // of the drafts that figures by position are about
  bool confidence = false;
  std::vector<float> temperatures;  // of a calibrated confidence head; else empty
};

struct Speed {
  int64_t tokens = 0;
  double ms = 0;
  double Rate() const { return ms > 0 ? double(tokens) * 1000 / ms : 0; }  // tokens per second
};

// One drafter on one suite.
struct SuiteResult {
  std::string suite, domain;
  int prompts = 0, answers = 0;
  int cut = 0;        // conversations that the context did not hold
  int different = 0;  // greedy answers that are not plain decoding's
  // Every round verifies the whole block, or what is left to the end of the answer; sampled drafts are
  // accepted token by token.
  AcceptanceStats whole;
  AcceptanceStats whole_lookup;             // of `whole`: what prompt lookup beside the drafter drafted
  AcceptanceStats served;                   // lengths by the policy
  std::vector<ConfidenceRound> confidence;  // of the whole blocks
  AcceptanceStats without_confidence;       // the other rounds of the whole blocks
  Speed plain, speculative;                 // speculative: lengths by the policy
  std::vector<double> ratios;  // of speeds, group of prompts by group; empty where nothing could be timed

  // Of `whole`: rounds that are the drafter's own.
  AcceptanceStats OwnRounds() const { return whole.Without(whole_lookup); }
};

struct DrafterResult {
  std::string name, path;
  DrafterTraits traits;
  std::vector<SuiteResult> suites;
};

struct EvalResults {
  std::string model, machine, policy;
  double temperature = 0;
  int max_tokens = 0, concurrency = 1;
  int max_turns = 0;   // 0: all of a prompt
  std::string accept;  // rule for sampled drafts as served: "block" or "token"
  uint64_t seed = 0;
  std::vector<DrafterResult> drafters;

  int Prompts() const;  // of all suites
  int Answers() const;  // of plain decoding to them
  // Answers that are not plain decoding's, of all drafters.
  int Different() const;
  // Whether all greedy answers are plain decoding's; nothing where none was compared.
  std::optional<bool> Lossless() const;
};

// What groups of prompts, each timed plainly and with drafts, say of a speed-up.
struct SpeedEvidence {
  int groups = 0;
  double first_quartile = 0, third_quartile = 0;  // of the ratios of speeds; NaN without groups
  // Two-sided sign test: how likely such a share of ratios above (or below) 1 would be, were both equally
  // fast.
  double sign_p = 1;
  bool certain() const { return sign_p < 0.05; }  // six groups at least
};
SpeedEvidence EvidenceOf(std::vector<double> ratios);

// The figures of a suite, or means over suites that count alike. NaN where nothing was measured.
struct Figures {
  double tau = 0, verify_rate = 0, drafts_per_round = 0;  // of whole blocks
  double served_tau = 0, served_verify_rate = 0;          // by the policy
  std::vector<double> unconditional, conditional;         // by position, of the drafter's own rounds
  double speedup = 0, median_speedup = 0;                 // over plain decoding
  double plain_tok_per_s = 0, spec_tok_per_s = 0;
  std::vector<double> ratios;  // of speeds, group by group, of all suites
};

// Whether there is a speed-up that the sign test cannot tell from equal speed.
bool MayBeNoise(const Figures& figures);
Figures FiguresOf(const SuiteResult& suite);
// Unweighted mean over the suites, undefined figures left out (drafters.md §9). A domain's: pass those alone.
Figures MeanFigures(const std::vector<Figures>& suites);

// Rounds with a static threshold t (drafters.md §5.2): drafts from the first with confidence below t on are
// not verified. Taken from rounds of whole blocks, each cut as t would have cut it; the text goes on where
// the recorded round did. Rounds `without` confidences count as they were, so that t = 0 cuts nothing.
struct SweepPoint {
  double threshold = 0;
  AcceptanceStats stats;
};
std::vector<SweepPoint> SweepThresholds(const std::vector<ConfidenceRound>& rounds,
                                        const AcceptanceStats& without,
                                        const std::vector<float>& temperatures);

// Fewer rounds than these are no figure's point: one kept draft more or less would move it visibly.
inline constexpr int64_t kFewRounds = 30;

// Domains in the order met, each once.
std::vector<std::string> DomainsOf(const EvalResults& results);

// Everything above: see docs/evaluation.md. What is undefined is null.
nlohmann::json ToJson(const EvalResults& results);
// Before and after `temperatures`, by position and in mean.
nlohmann::json CalibrationJson(const std::vector<ConfidenceRound>& rounds, int positions,
                               const std::vector<float>& temperatures);

}  // namespace dspark

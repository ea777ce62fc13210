// A model and several drafters for it, ready to be measured: what `eval` and `calibrate` start from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/session.h"
#include "apps/progress_line.h"
#include "eval/evaluate.h"

namespace CLI {
class App;
}

namespace dspark {

struct EvalSessionOptions {
  SessionOptions session;             // its draft options hold for every drafter
  std::vector<std::string> drafters;  // [NAME=]PATH or lookup
  bool with_lookup = false;           // prompt lookup beside every trained drafter
  bool uncalibrated = false;          // forget the temperatures stored with the drafters
  RolloutOptions rollout;
  int max_prompts = 0, max_turns = 0;  // as SuiteOptions
};

// -m and its friends, -md, --draft-weights, --max-prompts, --max-turns, --max-tokens, --temp, --seed,
// --concurrency.
void AddEvalSessionFlags(CLI::App& app, EvalSessionOptions* options);

// Error: a drafter that names nothing to measure, two of one name.
Status CheckDrafterNames(const EvalSessionOptions& options);

struct LoadedDrafter {
  std::string name, path;
  Candidate candidate;
  std::unique_ptr<Drafter> drafter;
};

struct EvalSession {
  // `options` has passed CheckDrafterNames. Error: one line; a drafter that does not fit.
  static Result<std::unique_ptr<EvalSession>> Open(const EvalSessionOptions& options);

  std::unique_ptr<Session> session;
  std::vector<LoadedDrafter> drafters;
  std::unique_ptr<EvalSetting> setting;

  // Of all drafters, in order.
  std::vector<Candidate> Candidates() const;
};

// "gsm8k: 3 of 10 prompts" on stderr; the last one stays.
void ShowProgress(const Suite& suite, int done, ProgressLine* line);

}  // namespace dspark

// -md: from what a user names to the drafter that runs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "draft/registry.h"
#include "engine/engine.h"
#include "load/model_files.h"
#include "load/ngram_file.h"

namespace dspark {

// Of --policy fixed and --draft-max.
inline constexpr int kLongestDraft = 15;

struct DraftOptions {
  // auto: lookup, and the counted table that comes with dspark for this model. none. Or a list, with commas:
  // lookup, a drafter's file or directory, a counted table's file
  std::string draft = "auto";
  bool no_spec = false;             // the same as draft none
  bool no_lookup = false;           // what `draft` names alone, without prompt lookup beside it
  std::string weights;              // f32, bf16, int8 or int4; empty: as in the drafter's file
  std::string policy = "adaptive";  // adaptive, zos, fixed:N, threshold:P, cumulative:P, off
  int draft_max = -1;               // ≥ 0: the same as policy fixed:N
  std::string accept = "block";     // of sampled drafts: block or token
};

// What --draft, --no-lookup and --draft-weights say together. Error: they cannot be meant so.
Status CheckDraftFlags(const DraftOptions& options);

// The parts of -md's value: what stands between commas, unless there is a file of just that name.
std::vector<std::string> DraftParts(const std::string& draft);

// A value of --policy. Error: an unknown one.
Status CheckPolicy(const std::string& policy);

// A value of --weights or --draft-weights; nothing where it is empty: not given. Error: an unknown name.
Result<std::optional<WeightFormat>> ResolveWeights(const std::string& name);

// What proposes, before the target is loaded: its taps are part of the target's limits.
struct DraftSource {
  bool lookup = false;
  std::optional<NgramFile> table;
  std::optional<DrafterFiles> files;  // of a trained drafter
  std::optional<WeightFormat> weights;

  int taps() const {
    return !files ? 0 : files->config.kind == DrafterKind::kMtp ? 1 : int(files->config.taps.size());
  }
  // As -md would name them all: none, or a list with commas.
  std::string Names() const;
  // Drafts of one round at most.
  int max_drafts() const;
  // Of a drafter's weights and K/V, in bytes, before it is loaded; 0 without one.
  double Bytes(const ModelConfig& target, const TargetLimits& limits, int sequences) const;
  // Null when nothing proposes. `kv_blocks` as DrafterLimits has it. Error: as LoadDrafter.
  Result<std::unique_ptr<Drafter>> Make(const Target& target, ThreadPool& pool, int sequences,
                                        int kv_blocks = 0) const;
};

// Error: as CheckDraftFlags and ResolveWeights; a name that is neither a word of -md nor a drafter's files;
// two drafters of one sort; one that does not fit the target.
Result<DraftSource> ChooseDraftSource(const DraftOptions& options, const ModelFiles& target);

// The engine's part of the options. Error: an unknown policy, accept rule or value.
Result<EngineOptions> ChooseEngineOptions(const DraftOptions& options, int sequences);

}  // namespace dspark

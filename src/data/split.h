// Conversations to training and held-out prompts (data_pipeline.md §2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

struct SplitOptions {
  std::vector<std::string> inputs;  // JSONL as ParseConversation reads it, also .gz
  std::string out;                  // directory
  double held_out = 0.05;           // share of the rows
  uint64_t seed = 42;
  int64_t max_samples = 0;                    // 0: all; else the first so many that can be used
  std::vector<std::string> domains;           // none: all; else only rows whose "domain" is one of these
  std::vector<std::string> without_licenses;  // rows whose "license" contains one of these are left out
  bool keep_system = false;                   // without, system messages are left out, as DeepSpec does
  bool force = false;                         // replace outputs that exist
};

struct SplitSummary {
  int64_t train = 0, held_out = 0;  // rows written
  int64_t filtered = 0;             // left out by domain or license
  int64_t rejected = 0;
  std::vector<std::string> first_rejected;  // "file:line: reason", at most 5
};

// Writes out/train.jsonl (ConversationLine) and out/held_out.jsonl ({"turns": [user contents], "id",
// "domain"}), both whole or not at all, and out/split_rejected.jsonl when rows cannot be used (RejectedRows).
// A row keeps its id; one without gets its index over all inputs; a second row of an id is rejected. Error:
// an input that cannot be read, or is an output; outputs that exist; an id that is also the index of a row
// without one: neither row is dropped for that.
Result<SplitSummary> Split(const SplitOptions& options);

// Depends on nothing but the arguments, so that membership stays when rows are added or reordered. `id` is
// JSON text.
bool IsHeldOut(uint64_t seed, const std::string& id, double share);

}  // namespace dspark

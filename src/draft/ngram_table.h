// Drafts by counting: after each context the token that followed it most often in the target's own answers
// (load/ngram_file.h), with how likely that is as confidence. Nothing is run: a draft takes less than a
// microsecond.
#pragma once

#include <unordered_map>
#include <vector>

#include "draft/drafter.h"
#include "load/ngram_file.h"

namespace dspark {

struct NgramTableOptions {
  int max_tokens = 15;  // ≥ 1: longest proposal
  // A proposal ends where all its drafts together are less likely to be kept: no row is that cheap.
  float least_cumulative = 0.02f;
};

class NgramTable : public Drafter {
 public:
  explicit NgramTable(NgramFile table, const NgramTableOptions& options = {});

  int max_tokens() const override { return options_.max_tokens; }
  size_t weight_bytes() const override { return size_t(NgramBytes(table_.entries())); }
  // A sequence that is already known starts anew.
  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  // From the longest context that the table holds, draft by draft. Every q is one-hot.
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;

 private:
  using Context = std::vector<int32_t>;  // the last tokens, at most `order`, the newest last

  Context& ContextOf(SequenceId sequence);
  void Append(std::span<const int32_t> tokens, Context* context) const;
  NgramFile::Next Longest(const Context& context) const;

  const NgramFile table_;
  const NgramTableOptions options_;
  std::unordered_map<SequenceId, Context> contexts_;
  Context drafted_;  // a context with drafts behind it; kept between steps
};

}  // namespace dspark

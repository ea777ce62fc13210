// Drafts by copying: what followed the longest earlier occurrence of the text's last tokens, in prompt or
// reply.
//
// Saxena 2023, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding), with the longest
// match found through an index that grows with the text, so that a step costs the same at any context length.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "draft/drafter.h"

namespace dspark {

struct PromptLookupOptions {
  int max_tokens = 16;   // ≥ 1: longest proposal
  int min_match = 3;     // ≥ 1: shorter matches propose nothing
  int max_match = 32;    // ≥ min_match: matches at least this long count as equal, and end the search
  int max_probes = 128;  // ≥ 1: candidates looked at per index, most recent first
};

class PromptLookup : public Drafter {
 public:
  explicit PromptLookup(const PromptLookupOptions& options = {});
  ~PromptLookup() override;

  int max_tokens() const override { return options_.max_tokens; }
  // A sequence that is already known starts anew.
  void Begin(SequenceId sequence, std::span<const int32_t> prompt) override;
  // The longest match wins, the most recent among equally long ones. Every q is one-hot (Proposal::q stays
  // empty). A copy that reaches the end of the text goes on with what it has copied: periodic text is
  // continued periodically.
  void Propose(std::span<ProposeRequest> requests) override;
  void Observe(std::span<const ObservedRows> rows) override;
  void End(SequenceId sequence) override;

 private:
  class Text;
  Text& TextOf(SequenceId sequence);

  PromptLookupOptions options_;
  std::unordered_map<SequenceId, std::unique_ptr<Text>> texts_;
  std::vector<std::unique_ptr<Text>> unused_;  // of ended sequences: their memory serves the next ones
};

}  // namespace dspark

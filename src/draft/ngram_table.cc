#include "draft/ngram_table.h"

#include <algorithm>

#include "core/check.h"
#include "core/token_hash.h"

namespace dspark {

NgramTable::NgramTable(NgramFile table, const NgramTableOptions& options)
    : table_(std::move(table)), options_(options) {
  DSPARK_CHECK_GE(options.max_tokens, 1);
}

void NgramTable::Append(std::span<const int32_t> tokens, Context* context) const {
  const size_t order = size_t(table_.config().order);
  if (tokens.size() > order) tokens = tokens.last(order);
  context->insert(context->end(), tokens.begin(), tokens.end());
  if (context->size() > order) context->erase(context->begin(), context->end() - int64_t(order));
}

void NgramTable::Begin(SequenceId sequence, std::span<const int32_t> prompt) {
  Context& context = contexts_[sequence];
  context.clear();
  Append(prompt, &context);
}

// A probability of 0 where the table holds no context.
NgramFile::Next NgramTable::Longest(const Context& context) const {
  NgramFile::Next longest{0, 0};
  uint64_t hash = kEmptyContextHash;
  for (size_t k = 1; k <= context.size(); ++k) {
    hash = HashTokens(hash, {&context[context.size() - k], 1});
    if (const auto next = table_.Find(hash)) longest = *next;
  }
  return longest;
}

void NgramTable::Propose(std::span<ProposeRequest> requests) {
  for (const ProposeRequest& request : requests) {
    drafted_ = ContextOf(request.sequence);
    Proposal& proposal = *request.proposal;
    proposal.origin = DraftOrigin::kTable;
    float cumulative = 1;
    for (int k = 0; k < std::min(request.max_tokens, options_.max_tokens); ++k) {
      const NgramFile::Next next = Longest(drafted_);
      cumulative *= next.probability;
      if (cumulative < options_.least_cumulative) break;
      proposal.tokens.push_back(next.token);
      proposal.confidence.push_back(next.probability);
      Append({&next.token, 1}, &drafted_);
    }
  }
}

void NgramTable::Observe(std::span<const ObservedRows> rows) {
  for (const ObservedRows& row : rows) Append(row.next.last(size_t(row.committed)), &ContextOf(row.sequence));
}

void NgramTable::End(SequenceId sequence) {
  const size_t ended = contexts_.erase(sequence);
  DSPARK_CHECK(ended == 1);
}

NgramTable::Context& NgramTable::ContextOf(SequenceId sequence) {
  const auto at = contexts_.find(sequence);
  DSPARK_CHECK(at != contexts_.end());  // Begin comes first
  return at->second;
}

}  // namespace dspark

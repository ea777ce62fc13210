// A drafter proposes; what it proposes never changes what the text may be, only how fast it comes.
//
// Life of a sequence: Begin with the prompt, then rounds of Propose and Observe, then End.
#pragma once

#include <cstdint>
#include <span>

#include "draft/proposal.h"

namespace dspark {

using SequenceId = int64_t;

struct ProposeRequest {
  SequenceId sequence = 0;
  int max_tokens = 0;            // propose at most this many
  Proposal* proposal = nullptr;  // cleared by the caller
};

struct ObservedRows {
  SequenceId sequence = 0;
  std::span<const int32_t> tokens;  // committed this round: accepted drafts, then the extra token
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  // The longest proposal it can make.
  virtual int max_tokens() const = 0;
  virtual void Begin(SequenceId sequence, std::span<const int32_t> prompt) = 0;
  // One call drafts for all sequences of the step.
  virtual void Propose(std::span<ProposeRequest> requests) = 0;
  virtual void Observe(std::span<const ObservedRows> rows) = 0;
  virtual void End(SequenceId sequence) = 0;
};

}  // namespace dspark

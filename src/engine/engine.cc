#include "engine/engine.h"

#include <algorithm>

namespace dspark {
namespace {

Status CheckTokens(std::span<const int32_t> tokens, int vocab, const char* what) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return MakeError("{} token {} is {}; the vocabulary has ids 0 to {}", what, i, tokens[i], vocab - 1);
    }
  }
  return {};
}

}  // namespace

Engine::Engine(Target& target, BlockPool& blocks, Drafter* drafter, const Tokenizer* tokenizer,
               CostTable costs, const EngineOptions& options)
    : target_(target),
      blocks_(blocks),
      drafter_(drafter),
      tokenizer_(tokenizer),
      costs_(std::move(costs)),
      options_(options),
      verify_scratch_(options.pool ? size_t(options.pool->threads()) : 1) {
  if (options.prefix_cache) cache_.emplace(blocks);
  for (VerifyScratch& scratch : verify_scratch_) scratch.logits.resize(size_t(target.config().vocab));
  DSPARK_CHECK_LE(options.max_sequences, target.limits().max_logit_rows);
  const bool speculates = drafter || options.draft_forced;
  DSPARK_CHECK(!speculates || !options.Adaptive() || !costs_.points().empty());
}

Engine::~Engine() = default;

Result<SequenceId> Engine::Submit(Request request) {
  const int vocab = target_.config().vocab, context = target_.limits().max_context;
  if (request.prompt.empty()) return MakeError("the prompt has no tokens; give at least one");
  if (int(request.prompt.size()) >= context) {
    return MakeError("the prompt has {} tokens and the context holds {}; shorten it or raise --ctx",
                     request.prompt.size(), context);
  }
  if (request.max_tokens < 1) return MakeError("max_tokens is {}; it must be at least 1", request.max_tokens);
  DSPARK_RETURN_IF_ERROR(CheckTokens(request.prompt, vocab, "prompt"));
  DSPARK_RETURN_IF_ERROR(CheckTokens(request.stop_tokens, vocab, "stop"));
  DSPARK_RETURN_IF_ERROR(Validate(request.sampling, vocab));
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return MakeError("a stop string is empty; leave it out");
    if (!tokenizer_)
      return MakeError("stop strings need a tokenizer and the model has none; use stop tokens");
  }
  if (request.top_logprobs > vocab) {
    return MakeError("top_logprobs is {}; the vocabulary has {} tokens", request.top_logprobs, vocab);
  }
  request.max_tokens = std::min(request.max_tokens, context - int(request.prompt.size()));
  if (BlocksFor(request) > blocks_.blocks()) {
    return MakeError(
        "{} prompt and {} reply tokens need {} KV blocks and the pool has {}; shorten them or raise --ctx",
        request.prompt.size(), request.max_tokens, BlocksFor(request), blocks_.blocks());
  }
  const SequenceId id = next_id_++;
  waiting_.push_back(std::make_unique<Sequence>(id, std::move(request), blocks_, tokenizer_, vocab));
  return id;
}

void Engine::Cancel(SequenceId id) {
  const auto cancel = [id](auto& queue) {
    for (auto& sequence : queue) {
      if (sequence->id == id && sequence->finish == FinishReason::kNone)
        sequence->finish = FinishReason::kCancelled;
    }
  };
  cancel(waiting_);
  cancel(active_);
}

// A sequence holds K/V of at most all its tokens but the last; verified drafts never reach past max_tokens.
int Engine::BlocksFor(const Request& request) const {
  return blocks_.layout().BlocksFor(int(request.prompt.size()) + request.max_tokens);
}

}  // namespace dspark

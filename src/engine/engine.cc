#include "engine/engine.h"

#include <algorithm>
#include <cstring>

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

// Fewer rows than these ride along in a pass at little cost.
constexpr int kLeastShared = 8;

// Gives `next` the K/V of the longest beginning that its prompt has in common with an active sequence: the
// bits that running those rows would give, as a row's depend on nothing but the tokens up to it. The last
// token of a prompt is run in any case, for its logits.
void CopySharedPrompt(const std::vector<std::unique_ptr<Sequence>>& active, size_t block_bytes,
                      Sequence& next) {
  const Sequence* source = nullptr;
  int shared = kLeastShared - 1;
  for (const auto& other : active) {
    const int most = std::min(other->computed, int(next.tokens.size()) - 1);
    if (most <= shared) continue;
    const auto end = next.tokens.begin() + most;
    const int common =
        int(std::mismatch(next.tokens.begin(), end, other->tokens.begin()).first - next.tokens.begin());
    if (common > shared) source = other.get(), shared = common;
  }
  if (!source) return;
  DSPARK_CHECK(next.kv.Reserve(shared));  // promised at admission
  const KvBlocks from = source->kv.blocks(), to = next.kv.blocks();
  for (size_t i = 0; i < to.size(); ++i) std::memcpy(to[i], from[i], block_bytes);
  next.computed = shared;
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
  for (VerifyScratch& scratch : verify_scratch_) scratch.logits.resize(size_t(target.config().vocab));
  DSPARK_CHECK_LE(options.max_sequences, target.limits().max_logit_rows);
  DSPARK_CHECK(drafter == nullptr || !options.Adaptive() || !costs_.points().empty());
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
  for (auto* queue : {&waiting_, &active_}) {
    for (auto& sequence : *queue) {
      if (sequence->id == id && sequence->finish == FinishReason::kNone)
        sequence->finish = FinishReason::kCancelled;
    }
  }
}

// A sequence holds K/V of at most all its tokens but the last; verified drafts never reach past max_tokens.
int Engine::BlocksFor(const Request& request) const {
  return blocks_.layout().BlocksFor(int(request.prompt.size()) + request.max_tokens);
}

// Moves waiting sequences in while a place and the blocks they may come to need are free. First come, first
// served.
void Engine::Admit() {
  while (!waiting_.empty() && int(active_.size()) < options_.max_sequences) {
    Sequence& next = *waiting_.front();
    const int needed = BlocksFor(next.request);
    if (promised_blocks_ + needed > blocks_.blocks()) return;
    promised_blocks_ += needed;
    const bool observes = drafter_ && next.request.speculate;
    if (observes) drafter_->Begin(next.id, next.tokens);
    // A drafter that reads the target's taps must see them for every row.
    if (!observes || drafter_->tap_layers().empty())
      CopySharedPrompt(active_, blocks_.layout().BlockBytes(), next);
    next.acceptance.StartFrom(learned_);
    active_.push_back(std::move(waiting_.front()));
    waiting_.erase(waiting_.begin());
  }
}

// Says so to the callers, and takes them out of the queues.
void Engine::EndCancelled() {
  for (auto* queue : {&waiting_, &active_}) {
    for (auto& sequence : *queue) {
      if (sequence->finish != FinishReason::kCancelled) continue;
      events_.push_back({.sequence = sequence->id,
                         .text = sequence->text.Finish(),
                         .finish = sequence->finish,
                         .stats = std::make_shared<SequenceStats>(sequence->stats)});
    }
  }
  std::erase_if(waiting_, [](const auto& sequence) { return sequence->finish != FinishReason::kNone; });
  RemoveFinished();
}

void Engine::RemoveFinished() {
  std::erase_if(active_, [this](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->finish == FinishReason::kNone) return false;
    promised_blocks_ -= BlocksFor(sequence->request);
    if (drafter_ && sequence->request.speculate) drafter_->End(sequence->id);
    return true;
  });
}

}  // namespace dspark

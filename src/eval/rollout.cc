#include "eval/rollout.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/clock.h"

namespace dspark {
namespace {

struct Conversation {
  const EvalPrompt* prompt;
  uint64_t seed;
  std::vector<ChatMessage> messages;
  std::string text;  // of the answer under way
  Rollout* rollout;

  size_t turn() const { return rollout->answers.size(); }
};

class Group {
 public:
  Group(Engine& engine, const ChatEncoder& encoder, int context, const RolloutOptions& options)
      : engine_(engine), encoder_(encoder), context_(context), options_(options) {}

  Status Ask(Conversation conversation);
  Status Step(GroupRun* run);

 private:
  // The answer is complete: the next turn, if there is one.
  Status Answered(SequenceId id);

  Engine& engine_;
  const ChatEncoder& encoder_;
  const int context_;
  const RolloutOptions& options_;
  std::map<SequenceId, Conversation> running_;
};

// Hands the next turn to the engine. A conversation that the context does not hold ends here.
Status Group::Ask(Conversation conversation) {
  conversation.messages.push_back({"user", conversation.prompt->turns[conversation.turn()]});
  Request request;
  request.prompt = encoder_.Encode(conversation.messages);
  request.sampling = options_.sampling;
  request.seed = conversation.seed;
  request.max_tokens = options_.max_tokens;
  if (int(request.prompt.size()) >= context_) {
    conversation.rollout->cut = true;
    return {};
  }
  DSPARK_ASSIGN_OR_RETURN(const SequenceId id, engine_.Submit(std::move(request)));
  conversation.rollout->answers.emplace_back();
  running_.emplace(id, std::move(conversation));
  return {};
}

Status Group::Answered(SequenceId id) {
  Conversation conversation = std::move(running_.extract(id).mapped());
  if (conversation.turn() == conversation.prompt->turns.size()) return {};
  conversation.messages.push_back({"assistant", std::exchange(conversation.text, {})});
  return Ask(std::move(conversation));
}

Status Group::Step(GroupRun* run) {
  const double start = NowMs();
  const std::span<const TokenEvent> events = engine_.Step();
  const double ms = NowMs() - start;
  int64_t tokens = 0;
  std::vector<SequenceId> answered;
  for (const TokenEvent& event : events) {
    if (event.finish == FinishReason::kError) return MakeError("{}", event.error);
    Conversation& conversation = running_.at(event.sequence);
    std::vector<int32_t>& answer = conversation.rollout->answers.back();
    if (event.token >= 0) {
      tokens += !answer.empty();
      answer.push_back(event.token);
    }
    conversation.text += event.text;
    if (event.finish != FinishReason::kNone) answered.push_back(event.sequence);
  }
  if (tokens > 0) {
    run->tokens += tokens;
    run->ms += ms;
  }
  for (const SequenceId id : answered) DSPARK_RETURN_IF_ERROR(Answered(id));
  return {};
}

}  // namespace

Result<ChatEncoder> ChatEncoder::Make(const ModelFiles& files) {
  if (!files.tokenizer) return MakeError("the model has no tokenizer; prompts cannot be encoded");
  DSPARK_ASSIGN_OR_RETURN(const ChatFormat format, DetectChatFormat(files.chat_template));
  return ChatEncoder(*files.tokenizer, format);
}

std::vector<int32_t> ChatEncoder::Encode(const std::vector<ChatMessage>& messages) const {
  return tokenizer_->Encode(
      RenderChat(format_, messages, /*add_generation_prompt=*/true, /*enable_thinking=*/false), true);
}

Result<GroupRun> RunGroup(Engine& engine, const ChatEncoder& encoder, int context,
                          std::span<const EvalPrompt> prompts, size_t first, const RolloutOptions& options) {
  GroupRun run;
  run.rollouts.resize(prompts.size());
  Group group(engine, encoder, context, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    Conversation conversation{&prompts[i], options.seed + first + i, {}, {}, &run.rollouts[i]};
    if (!prompts[i].system.empty()) conversation.messages.push_back({"system", prompts[i].system});
    DSPARK_RETURN_IF_ERROR(group.Ask(std::move(conversation)));
  }
  while (!engine.Idle()) DSPARK_RETURN_IF_ERROR(group.Step(&run));
  return run;
}

void RoundLog::OnRound(const RoundRecord& round) {
  acceptance_.Add(round.drafted, round.accepted, round.committed);
  const bool own = round.origin == own_;
  if (!own && round.origin != DraftOrigin::kModel)
    looked_up_.Add(round.drafted, round.accepted, round.committed);
  if (!own || round.confidence.empty() || round.drafted == 0) {
    without_confidence_.Add(round.drafted, round.accepted, round.committed);
    return;
  }
  ConfidenceRound& record = confidence_.emplace_back();
  record.verified = std::min(round.drafted, int(round.confidence.size()));
  record.accepted = std::min(round.accepted, record.verified);
  record.committed = round.committed;
  for (size_t k = 0; k < round.confidence.size(); ++k) {
    const double c = std::clamp(double(round.confidence[k]), 1e-7, 1 - 1e-7);
    const double temperature = temperatures_.empty() ? 1 : double(temperatures_[k]);
    record.logits.push_back(float(std::log(c / (1 - c)) * temperature));
  }
}

}  // namespace dspark

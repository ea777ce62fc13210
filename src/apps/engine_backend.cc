#include "apps/engine_backend.h"

namespace dspark {

Result<EngineBackend> EngineBackend::Open(const SessionOptions& session, const ReplyOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(auto opened, Session::Open(session));
  if (!opened->files.tokenizer) {
    return MakeError("{}: the model has no tokenizer; conversations need one", opened->model_path);
  }
  DSPARK_ASSIGN_OR_RETURN(const ChatFormat format, DetectChatFormat(opened->files.chat_template));
  return EngineBackend(std::move(opened), options, format);
}

void EngineBackend::Submit(ChatCall call) {
  ChatReply reply{.ticket = call.ticket};
  const std::string prompt = RenderChat(format_, call.messages, true, !options_.no_think);
  Request request;
  request.prompt = session_->files.tokenizer->Encode(prompt, true);
  request.sampling = options_.sampling;
  request.seed = call.seed;
  request.max_tokens = options_.max_tokens;
  const auto id = session_->engine->Submit(std::move(request));
  if (id) {
    replies_.emplace(*id, std::move(reply));
  } else {
    reply.error = id.error().text;
    refused_.push_back(std::move(reply));
  }
}

Result<std::vector<ChatReply>> EngineBackend::Poll() {
  std::vector<ChatReply> done = std::exchange(refused_, {});
  for (const TokenEvent& event : session_->engine->Step()) {
    const auto at = replies_.find(event.sequence);
    DSPARK_CHECK(at != replies_.end());
    at->second.content += event.text;
    tokens_ += event.token >= 0;
    if (event.finish == FinishReason::kNone) continue;
    at->second.finish_reason = FinishReasonName(event.finish);
    at->second.error = event.error;
    done.push_back(std::move(at->second));
    replies_.erase(at);
  }
  return done;
}

}  // namespace dspark

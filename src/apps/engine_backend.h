// Chat replies by our own engine, in this process, at full batch.
#pragma once

#include <unordered_map>

#include "api/session.h"
#include "apps/reply_options.h"
#include "data/regenerate.h"

namespace dspark {

class EngineBackend : public ChatBackend {
 public:
  // Error: the model has no tokenizer or no chat template that we know.
  static Result<EngineBackend> Open(const SessionOptions& session, const ReplyOptions& options);

  bool HasRoom() const override { return int(replies_.size()) < session_->engine->options().max_sequences; }
  void Submit(ChatCall call) override;
  // One step of the engine.
  Result<std::vector<ChatReply>> Poll() override;
  int64_t tokens() const override { return tokens_; }
  const Session& session() const { return *session_; }

 private:
  EngineBackend(std::unique_ptr<Session> session, const ReplyOptions& options, ChatFormat format)
      : session_(std::move(session)), options_(options), format_(format) {}

  std::unique_ptr<Session> session_;
  ReplyOptions options_;
  ChatFormat format_;
  std::unordered_map<SequenceId, ChatReply> replies_;  // under way
  std::vector<ChatReply> refused_;                     // by Submit, for the next Poll
  int64_t tokens_ = 0;
};

}  // namespace dspark

#include "api/shared_engine.h"

namespace dspark {

void TurnMutex::lock() {
  std::unique_lock lock(mutex_);
  const uint64_t mine = asked_++;
  next_.wait(lock, [&] { return serving_ == mine; });
}

void TurnMutex::unlock() {
  {
    const std::lock_guard lock(mutex_);
    ++serving_;
  }
  next_.notify_all();
}

Result<std::shared_ptr<SharedEngine>> SharedEngine::Open(const SessionOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(auto session, Session::Open(options));
  return std::shared_ptr<SharedEngine>(new SharedEngine(std::move(session)));
}

Result<std::shared_ptr<const Constraint>> SharedEngine::Constrain(const ReplyForm& form) {
  const ModelFiles& files = session_->files;
  std::call_once(tokens_made_,
                 [&] { tokens_ = std::make_shared<TokenTrie>(*files.tokenizer, files.config.eos); });
  std::string param;
  return MakeResponseConstraint(form, tokens_, &param);
}

Result<SequenceId> SharedEngine::Submit(Request request) {
  const std::lock_guard turn(turn_);
  DSPARK_ASSIGN_OR_RETURN(const SequenceId id, session_->engine->Submit(std::move(request)));
  ++live_;
  const std::lock_guard lock(mutex_);
  replies_.try_emplace(id);
  return id;
}

int SharedEngine::Step() {
  const std::lock_guard turn(turn_);
  if (session_->engine->Idle()) return 0;
  const std::span<const TokenEvent> events = session_->engine->Step();
  const std::lock_guard lock(mutex_);
  for (const TokenEvent& event : events) {
    if (event.finish != FinishReason::kNone) --live_;
    const auto reply = replies_.find(event.sequence);
    if (reply == replies_.end()) continue;  // released
    reply->second.events.push_back(event);
    reply->second.stats = event.stats;
  }
  return live_;
}

bool SharedEngine::Cancel(SequenceId id) {
  const std::lock_guard turn(turn_);
  const std::lock_guard lock(mutex_);
  if (!replies_.contains(id)) return false;
  session_->engine->Cancel(id);
  return true;
}

bool SharedEngine::Release(SequenceId id) {
  const std::lock_guard turn(turn_);
  const std::lock_guard lock(mutex_);
  if (replies_.erase(id) == 0) return false;
  session_->engine->Cancel(id);
  return true;
}

std::optional<const TokenEvent*> SharedEngine::Poll(SequenceId id) {
  const std::lock_guard lock(mutex_);
  const auto found = replies_.find(id);
  if (found == replies_.end()) return std::nullopt;
  SharedReply& reply = found->second;
  if (reply.events.empty()) return nullptr;
  reply.polled = std::move(reply.events.front());
  reply.events.pop_front();
  return &reply.polled;
}

std::optional<std::shared_ptr<const SequenceStats>> SharedEngine::Stats(SequenceId id) {
  const std::lock_guard lock(mutex_);
  const auto found = replies_.find(id);
  if (found == replies_.end()) return std::nullopt;
  return found->second.stats;
}

}  // namespace dspark

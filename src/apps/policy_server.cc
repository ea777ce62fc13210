#include "apps/policy_server.h"

#include <spdlog/sinks/null_sink.h>

#include <chrono>
#include <thread>

namespace dspark {

StepSums StepLog::sums() const {
  const std::scoped_lock lock(mutex_);
  return sums_;
}

void StepLog::OnRound(const RoundRecord& round) {
  tally_.OnRound(round);
  if (!keep_rounds_) return;
  const std::scoped_lock lock(records_->mutex);
  records_->rounds.OnRound(round);
}

void StepLog::OnStep(const StepRecord& step) {
  const Engine::StepCost& cost = step.cost;
  const bool more = step.running + step.waiting > 0;
  // A step that followed at once: what lies between two ends is what a step takes in service.
  {
    const std::scoped_lock lock(records_->mutex);
    records_->profile.AddStep(cost, last_end_ms_ > 0 ? step.end_ms - last_end_ms_ : 0);
  }
  last_end_ms_ = more ? step.end_ms : 0;
  const std::scoped_lock lock(mutex_);
  sums_ += {.steps = cost.rows > 0,
            .rows = cost.rows,
            .sequences = cost.committing,
            .rounds = step.counts.rounds,
            .drafted = step.counts.drafted,
            .accepted = step.counts.accepted,
            .committed = step.counts.committed,
            .ms = step.ms,
            .pass_ms = cost.pass_ms,
            .drafter_ms = cost.drafter_ms,
            .tokens = step.tokens};
}

void StepLog::OnEnd(const EndRecord& end) {
  const bool whole = end.finish == FinishReason::kStop || end.finish == FinishReason::kLength;
  if (!whole || !end.stats) return;
  const std::scoped_lock lock(records_->mutex);
  if (records_->shapes.size() < ServiceRecords::kMost)
    records_->shapes.push_back({end.stats->prompt_tokens, end.stats->completion_tokens});
}

Result<std::unique_ptr<PolicyServer>> PolicyServer::Start(Session& session, const ServedModel& model,
                                                          const std::string& policy,
                                                          const DraftOptions& draft, const CostTable& costs,
                                                          std::unique_ptr<StepLog> log) {
  std::unique_ptr<PolicyServer> server(new PolicyServer);
  server->policy_ = policy;
  server->log_ = std::move(log);
  DraftOptions chosen = draft;
  chosen.policy = policy;
  const int sequences = session.engine->options().max_sequences;
  DSPARK_ASSIGN_OR_RETURN(EngineOptions options, ChooseEngineOptions(chosen, sequences));
  options.pool = session.pool.get();
  options.observer = server->log_.get();
  // The pools are shared: text that one server keeps would be in the way of the others.
  options.prefix_cache = false;
  Drafter* drafter = policy == "off" ? nullptr : session.drafter.get();
  options.draft_forced = drafter != nullptr;
  server->engine_ = std::make_unique<Engine>(*session.target, *session.blocks, drafter,
                                             session.files.tokenizer.get(), costs, options);
  server->metrics_ = std::make_unique<ServeMetrics>(model.name);
  server->observers_ = std::make_unique<LoadObservers>(
      std::vector<LoadObserver*>{server->metrics_.get(), &server->history_, server->log_.get()});
  server->loop_ = std::make_unique<EngineLoop>(*server->engine_, LoopOptions{.queue = 1 << 16},
                                               &server->log_->tally(), server->observers_.get());
  auto quiet = std::make_shared<spdlog::logger>("bench", std::make_shared<spdlog::sinks::null_sink_mt>());
  quiet->set_level(spdlog::level::off);
  ServerOptions http;
  http.port = 0;
  http.connections = 2 * sequences + 64;
  server->http_ =
      std::make_unique<HttpServer>(http, model, *server->loop_, *server->metrics_, server->history_, quiet);
  DSPARK_ASSIGN_OR_RETURN(server->port_, server->http_->Start());
  return server;
}

PolicyServer::~PolicyServer() {
  if (loop_) loop_->Drain(0);
}

void PolicyServer::AwaitIdle() const {
  while (loop_->live() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace dspark

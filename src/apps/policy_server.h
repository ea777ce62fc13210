// A server in this process for one policy, on any free port, whose steps are looked at: what `bench serve`
// measures policies with. Several stand side by side on one loaded model; one at a time has work.
#pragma once

#include <mutex>
#include <string>

#include "api/session.h"
#include "eval/serving_profile.h"
#include "eval/traffic_figures.h"
#include "serve/http_server.h"

namespace dspark {

// What the steps of all servers taught.
struct ServiceRecords {
  static constexpr size_t kMost = 256;  // replies
  std::mutex mutex;
  ProfileRecorder profile;
  RoundRecorder rounds{kMost};
  std::vector<ReplyShape> shapes;
};

// What the steps of one server came to.
class StepLog : public LoadObserver, public RoundObserver {
 public:
  // `keep_rounds`: this policy's rounds are recorded.
  StepLog(ServiceRecords* records, bool keep_rounds) : records_(records), keep_rounds_(keep_rounds) {}

  RoundTally& tally() { return tally_; }
  StepSums sums() const;  // so far; from any thread

  void OnRound(const RoundRecord& round) override;
  void OnStep(const StepRecord& step) override;
  void OnEnd(const EndRecord& end) override;

 private:
  ServiceRecords* const records_;
  const bool keep_rounds_;
  RoundTally tally_;
  double last_end_ms_ = 0;  // of the step before, if it left something to do; else 0
  mutable std::mutex mutex_;
  StepSums sums_;
};

class PolicyServer {
 public:
  // `session` was opened for the most sequences of any load. Error: an address that cannot be had.
  static Result<std::unique_ptr<PolicyServer>> Start(Session& session, const ServedModel& model,
                                                     const std::string& policy, const DraftOptions& draft,
                                                     const CostTable& costs, std::unique_ptr<StepLog> log);
  ~PolicyServer();

  const std::string& policy() const { return policy_; }
  int port() const { return port_; }
  StepSums sums() const { return log_->sums(); }
  // Returns when no sequence is left.
  void AwaitIdle() const;

 private:
  PolicyServer() = default;

  std::string policy_;
  int port_ = 0;
  std::unique_ptr<StepLog> log_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ServeMetrics> metrics_;
  LoadHistory history_;
  std::unique_ptr<LoadObservers> observers_;
  std::unique_ptr<EngineLoop> loop_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace dspark

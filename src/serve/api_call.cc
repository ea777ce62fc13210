#include "serve/api_call.h"

#include <fmt/format.h>

#include "core/clock.h"

namespace dspark {
namespace {

constexpr double kProbeMs = 100;  // between looks at whether the client is there
constexpr int kClientGone = 499;  // nginx's status, for the log alone

const ApiError kGone{.status = kClientGone, .message = "the client has gone", .code = "client_gone"};

}  // namespace

void CallRecord::Log(spdlog::logger& log) const {
  const double now = NowMs();
  std::string line = fmt::format("id={} path={} status={} ms={:.0f}", id, path, status, now - start_ms);
  const auto add = [&](auto format, auto... values) {
    fmt::format_to(std::back_inserter(line), fmt::runtime(format), values...);
  };
  if (choices > 0) add(" choices={} prompt={} tokens={}", choices, prompt_tokens, completion_tokens);
  if (first_token_ms > 0) add(" ttft_ms={:.1f}", first_token_ms - start_ms);
  if (completion_tokens > choices && first_token_ms > 0)
    add(" tpot_ms={:.2f}", (now - first_token_ms) * choices / (completion_tokens - choices));
  if (rounds > 0) add(" tau={:.2f} drafted={} accepted={}", double(committed) / rounds, drafted, accepted);
  if (!outcome.empty()) add(" finish={}", outcome);
  status < 500 ? log.info(line) : log.warn(line);
}

ApiCall::ApiCall(EngineLoop& loop, std::shared_ptr<ReplyStream> stream, ReplyHeader header,
                 const Connection& client, CallRecord record, std::shared_ptr<spdlog::logger> log,
                 double deadline_ms)
    : loop_(loop),
      stream_(std::move(stream)),
      header_(header),
      client_(client),
      log_(std::move(log)),
      deadline_ms_(deadline_ms),
      record_(std::move(record)),
      chunks_(std::move(header)),
      choices_(size_t(stream_->choices())),
      open_(stream_->choices()) {
  record_.choices = open_;
}

ApiCall::~ApiCall() {
  if (open_ > 0) loop_.Cancel(stream_);
  if (record_.outcome.empty()) record_.status = kClientGone, record_.outcome = kGone.code;
  record_.Log(*log_);
}

// Events into events_; none when nothing came for a while.
std::optional<ApiError> ApiCall::Take() {
  stream_->Take(kProbeMs, &events_);
  const double now = NowMs();
  if (now > probe_ms_) {  // a stream's writes would tell sooner
    if (!client_.Alive()) return kGone;
    probe_ms_ = now + kProbeMs;
  }
  if (deadline_ms_ > 0 && now > deadline_ms_) {
    return ApiError{.status = 504,
                    .message = "the request took longer than this server allows; ask for fewer tokens",
                    .type = "server_error",
                    .code = "timeout"};
  }
  return {};
}

void ApiCall::Add(ReplyEvent event) {
  if (event.event.token >= 0) {
    if (record_.first_token_ms == 0) record_.first_token_ms = NowMs();
    ++record_.completion_tokens;  // also of calls that come to no end
  }
  if (event.event.finish != FinishReason::kNone) {
    --open_;
    const SequenceStats& stats = *event.event.stats;
    record_.rounds += stats.rounds;
    record_.committed += stats.committed;
    record_.drafted += stats.drafted;
    record_.accepted += stats.accepted;
  }
  const bool ends = event.event.finish != FinishReason::kNone;
  ReplyChoice& choice = choices_[size_t(event.choice)];
  choice.Add(std::move(event.event), header_.logprobs);
  if (ends) record_.outcome = FinishName(header_, choice);
}

// What a choice's end means for the call: nothing, unless it is none of OpenAI's.
std::optional<ApiError> ApiCall::Ended(const TokenEvent& last) const {
  if (last.finish == FinishReason::kCancelled) return ShuttingDown();
  if (last.finish == FinishReason::kError)
    return ApiError{.status = 500, .message = last.error, .type = "server_error", .code = "model_error"};
  return {};
}

std::optional<ApiError> ApiCall::Collect(std::string* body) {
  std::optional<ApiError> error;
  while (open_ > 0 && !error) {
    error = Take();
    for (ReplyEvent& event : events_) {
      if (!error) error = Ended(event.event);
      Add(std::move(event));
    }
  }
  if (error) {
    record_.status = error->status, record_.outcome = error->code;
  } else {
    *body = ReplyBody(header_, choices_);
  }
  return error;
}

bool ApiCall::Stream(httplib::DataSink& sink) {
  out_.clear();
  std::optional<ApiError> error;
  if (!begun_) {  // the client learns at once that it was heard
    for (int i = 0; i < stream_->choices(); ++i) chunks_.Begin(i, &out_);
    begun_ = true;
    events_.clear();
  } else {
    error = Take();
  }
  for (ReplyEvent& event : events_) {
    if (!error) error = Ended(event.event);
    if (!error) {
      chunks_.Token(event.choice, event.event, &out_);
      if (event.event.finish != FinishReason::kNone) chunks_.Finish(event.choice, event.event, &out_);
    }
    Add(std::move(event));
  }
  if (error && error->status != kClientGone) ReplyChunks::Failed(*error, &out_);
  if (!error && open_ == 0) chunks_.End(choices_, &out_);
  const bool gone = error && error->status == kClientGone;
  if (!gone && !out_.empty() && !sink.write(out_.data(), out_.size())) error = kGone;
  if (error) record_.status = error->status, record_.outcome = error->code;
  if (error && error->status == kClientGone) return false;
  if (error || open_ == 0) sink.done();
  return true;
}

}  // namespace dspark

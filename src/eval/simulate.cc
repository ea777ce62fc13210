#include "eval/simulate.h"

#include <algorithm>
#include <map>
#include <utility>

namespace dspark {
namespace {

constexpr int kVocab = 16;
constexpr int kWrong = 15;
constexpr int kBlockTokens = 256;

// The one text there is: its token at every position.
int32_t TokenAt(int position) { return 1 + position % 8; }

class SimulatedTarget : public Target {
 public:
  SimulatedTarget(const ServingProfile& profile, const TargetLimits& limits, double* now_ms)
      : profile_(profile), limits_(limits), now_ms_(now_ms) {
    config_.vocab = kVocab;
    logits_.resize(size_t(limits.max_logit_rows) * kVocab);
  }
  const ModelConfig& config() const override { return config_; }
  const TargetLimits& limits() const override { return limits_; }
  KvLayout kv_layout() const override {
    return {.layers = 1, .kv_heads = 1, .head_dim = 2, .block_tokens = kBlockTokens};
  }
  TargetMemory memory() const override { return {}; }
  const PackedMatrix& embedding() const override { return none_; }
  const PackedMatrix& head() const override { return none_; }
  Isa isa() const override { return Isa::kReference; }

  ForwardOutput Forward(std::span<const Segment> segments, std::span<const int>) override {
    int decoding = 0, prompt = 0, row = 0;
    double depth_ms = 0;
    for (const Segment& segment : segments) {
      const int rows = int(segment.tokens.size());
      prompt += segment.logits_from;  // rows before the first with logits are a prompt's
      decoding += rows - segment.logits_from;
      depth_ms += profile_.costs.DepthMs(rows, segment.position);
      for (int i = segment.logits_from; i < rows; ++i, ++row) {
        float* logits = logits_.data() + size_t(row) * kVocab;
        std::fill_n(logits, kVocab, 0.0f);
        logits[TokenAt(segment.position + i + 1)] = 1;
      }
    }
    *now_ms_ +=
        (decoding > 0 ? profile_.costs.Ms(decoding) : 0) + prompt * profile_.prompt_ms_per_row + depth_ms;
    return {.logits = logits_.data(), .logits_stride = kVocab, .logit_rows = row};
  }

 private:
  const ServingProfile& profile_;
  const TargetLimits limits_;
  double* const now_ms_;
  ModelConfig config_;
  PackedMatrix none_;
  std::vector<float> logits_;  // [max_logit_rows, kVocab]
};

// Proposes what recorded replies proposed: the round that covers a reply's next token tells how many drafts
// from there on are kept.
class SimulatedDrafter : public Drafter {
 public:
  SimulatedDrafter(const ServingProfile& profile, uint64_t seed, double* now_ms)
      : profile_(profile), seed_(seed), now_ms_(now_ms) {
    for (const RecordedReply& reply : profile.replies) {
      for (const RecordedRound& round : reply) longest_ = std::max(longest_, round.drafts);
    }
  }
  int max_tokens() const override { return longest_; }
  bool runs_model() const override { return !profile_.draft_ms.points.empty(); }
  bool has_free_drafts() const override { return true; }

  void Begin(SequenceId sequence, std::span<const int32_t>) override {
    places_[sequence] = {&profile_.replies[(uint64_t(sequence) + seed_) % profile_.replies.size()]};
  }
  void Propose(std::span<ProposeRequest> requests) override {
    int drafting = 0;
    for (const ProposeRequest& request : requests) {
      const Place& place = places_.at(request.sequence);
      if (place.reply->empty()) continue;
      const RecordedRound& round = (*place.reply)[place.round];
      if (round.match_length == 0) drafting += !request.free_only;
      if (round.match_length == 0 && request.free_only) continue;
      const int drafts = std::min(round.drafts - place.offset, request.max_tokens);
      Proposal& proposal = *request.proposal;
      for (int k = 0; k < drafts; ++k) {
        const bool kept = place.offset + k < round.kept;
        proposal.tokens.push_back(kept ? TokenAt(place.position + 1 + k) : kWrong);
        const size_t at = size_t(place.offset) + size_t(k);
        if (at < round.confidence.size()) proposal.confidence.push_back(round.confidence[at]);
      }
      if (drafts <= 0 || round.match_length == 0) continue;
      proposal.origin = round.match_length > 0 ? DraftOrigin::kLookup : DraftOrigin::kTable;
      if (round.match_length > 0) proposal.match_length = round.match_length + place.offset;
    }
    *now_ms_ += profile_.draft_ms.At(drafting);
  }
  void Observe(std::span<const ObservedRows> rows) override {
    for (const ObservedRows& row : rows) {
      Place& place = places_.at(row.sequence);
      const bool begun = place.position > 0;
      place.position = row.position + int(row.next.size());
      // The prompt's last pass gives a token that belongs to no round.
      for (int i = 0; begun && place.decoding && i < row.committed; ++i) Advance(&place);
      place.decoding |= row.committed > 0;
    }
  }
  void End(SequenceId sequence) override { places_.erase(sequence); }

 private:
  struct Place {
    const RecordedReply* reply;
    size_t round = 0;
    int offset = 0;  // tokens of the round that are there
    int position = 0;
    bool decoding = false;
  };
  // One token on; a record that ends begins anew.
  static void Advance(Place* place) {
    if (place->reply->empty() || ++place->offset < (*place->reply)[place->round].committed) return;
    place->offset = 0;
    place->round = (place->round + 1) % place->reply->size();
  }

  const ServingProfile& profile_;
  const uint64_t seed_;
  double* const now_ms_;
  int longest_ = 0;
  std::map<SequenceId, Place> places_;
};

class Tally : public RoundObserver {
 public:
  explicit Tally(StepSums* sums) : sums_(sums) {}
  void OnRound(const RoundRecord& round) override {
    ++sums_->rounds;
    sums_->drafted += round.drafted, sums_->accepted += round.accepted, sums_->committed += round.committed;
  }

 private:
  StepSums* const sums_;
};

// Requests as they come, and the engine that answers them.
class Simulation {
 public:
  Simulation(const ServingProfile& profile, EngineOptions options, bool speculate, const SimulatedLoad& load)
      : profile_(profile), load_(load), shapes_(Shapes()), tally_(&run_.steps) {
    options.clock_ms = &now_ms_;
    options.observer = &tally_;
    options.pool = nullptr;
    options.prefix_cache = false;
    options.prefill_rows = profile.prefill_rows;
    int longest = 1;
    for (const ReplyShape& shape : shapes_) longest = std::max(longest, shape.prompt_tokens + shape.tokens);
    const TargetLimits limits{.max_rows = profile.logit_rows + profile.prefill_rows + options.max_sequences,
                              .max_logit_rows = std::max(profile.logit_rows, options.max_sequences),
                              .max_context = longest + 1,
                              .block_tokens = kBlockTokens};
    target_.emplace(profile, limits, &now_ms_);
    drafter_.emplace(profile, load.seed, &now_ms_);
    const KvLayout layout = target_->kv_layout();
    blocks_.emplace(layout, layout.BlocksFor(longest + 1) * options.max_sequences);
    engine_.emplace(*target_, *blocks_, speculate ? &*drafter_ : nullptr, nullptr, profile.costs, options);
  }

  LoadRun Run() {
    while (!fading_ && (next_ < load_.arrivals.size() || !engine_->Idle())) {
      TakeArrivals();
      if (engine_->Idle()) {
        now_ms_ = std::max(now_ms_, load_.arrivals[next_].at_ms);
        continue;
      }
      Step();
    }
    run_.window_ms = now_ms_ - window_begin_ms_;
    return std::move(run_);
  }

 private:
  std::vector<ReplyShape> Shapes() const {
    std::vector<ReplyShape> shapes;
    for (size_t i = 0; i < load_.arrivals.size(); ++i) {
      ReplyShape shape;
      if (!profile_.shapes.empty()) {
        shape = profile_.shapes[(i + load_.seed) % profile_.shapes.size()];
      }
      const Arrival& arrival = load_.arrivals[i];
      if (arrival.prompt_tokens > 0) shape.prompt_tokens = arrival.prompt_tokens;
      if (arrival.max_tokens > 0) shape.tokens = arrival.max_tokens;
      shapes.push_back(shape);
    }
    return shapes;
  }

  void TakeArrivals() {
    while (next_ < load_.arrivals.size()) {
      const bool due =
          load_.concurrency > 0 ? live_ < load_.concurrency : load_.arrivals[next_].at_ms <= now_ms_;
      if (!due) return;
      Request request;
      request.prompt.assign(size_t(shapes_[next_].prompt_tokens), 0);
      request.max_tokens = shapes_[next_].tokens;
      request.sampling.temperature = 0;
      request.ignore_eos = true;
      const auto id = engine_->Submit(std::move(request));
      DSPARK_CHECK(id.ok());
      running_[*id] = run_.replies.size();
      run_.replies.push_back({.due_ms = load_.concurrency > 0 ? now_ms_ : load_.arrivals[next_].at_ms});
      ++next_, ++live_;
    }
  }

  void Step() {
    const bool counts = load_.concurrency == 0 || ended_;
    const double start = now_ms_;
    const StepSums before = run_.steps;
    const std::span<const TokenEvent> events = engine_->Step();
    const Engine::StepCost cost = engine_->last_step();
    now_ms_ += profile_.overhead_ms.At(cost.committing);
    int64_t tokens = 0;
    for (const TokenEvent& event : events) tokens += Count(event);
    if (!counts) {
      run_.steps = before;
      return;
    }
    run_.window_tokens += double(tokens);
    run_.steps += {.steps = 1,
                   .rows = cost.rows,
                   .sequences = cost.committing,
                   .ms = now_ms_ - start,
                   .pass_ms = cost.pass_ms,
                   .drafter_ms = cost.drafter_ms,
                   .tokens = tokens};
  }

  int Count(const TokenEvent& event) {
    ReplyTimes& reply = run_.replies[running_.at(event.sequence)];
    if (++reply.tokens == 1) reply.first_ms = now_ms_;
    reply.last_ms = now_ms_;
    if (event.finish == FinishReason::kNone) return 1;
    reply.complete = true;
    if (!std::exchange(ended_, true) && load_.concurrency > 0) window_begin_ms_ = now_ms_;
    running_.erase(event.sequence);
    --live_;
    fading_ |= load_.concurrency > 0 && next_ == load_.arrivals.size();
    return 1;
  }

  const ServingProfile& profile_;
  const SimulatedLoad& load_;
  const std::vector<ReplyShape> shapes_;  // of the arrivals
  double now_ms_ = 0;
  LoadRun run_;
  Tally tally_;
  std::optional<SimulatedTarget> target_;
  std::optional<SimulatedDrafter> drafter_;
  std::optional<BlockPool> blocks_;
  std::optional<Engine> engine_;
  std::map<SequenceId, size_t> running_;  // by id: its place in run_.replies
  size_t next_ = 0;                       // arrival
  int live_ = 0;
  double window_begin_ms_ = 0;
  bool ended_ = false, fading_ = false;  // a first reply; the last arrival was taken
};

}  // namespace

LoadRun Simulate(const ServingProfile& profile, const EngineOptions& options, bool speculate,
                 const SimulatedLoad& load) {
  DSPARK_CHECK(!speculate || !profile.replies.empty());
  return Simulation(profile, options, speculate, load).Run();
}

}  // namespace dspark

#include "draft/sequential_drafter.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "draft/candidates.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

// Rows of one pass while observed rows are read: the activations stay in L2, and reading the weights hides
// behind arithmetic (DenseTarget's slices).
constexpr int kBatchRows = 128;

std::vector<int32_t> TargetIds(const DrafterConfig& config) {
  if (!config.draft_to_target.empty()) return config.draft_to_target;
  std::vector<int32_t> ids(size_t(config.backbone.vocab));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

int PassRows(const DrafterLimits& limits) { return std::max(kBatchRows, limits.max_sequences); }

int PositionsOf(const DrafterConfig& config, const DrafterLimits& limits) {
  return limits.max_context + config.max_drafts();
}

}  // namespace

SequentialDrafter::SequentialDrafter(const DrafterConfig& config, DraftWeights weights, const Target& target,
                                     ThreadPool& pool, const DrafterLimits& limits, int tap_width)
    : config_(config),
      weights_(std::move(weights)),
      stack_(config_.backbone, weights_.layers, pool.threads(),
             {.max_rows = PassRows(limits),
              .max_context = PositionsOf(config, limits),
              .block_tokens = limits.block_tokens,
              .kv_type = limits.kv_type}),
      taps_(PassRows(limits), tap_width),
      pairs_(PassRows(limits), 2 * config.backbone.d_model),
      pool_(pool),
      limits_(limits),
      embedding_(weights_.embedding.n() ? weights_.embedding : target.embedding()),
      head_(DraftHead(weights_, config_, target, pool, limits, &head_copy_)),
      candidates_(limits.candidates > 0 ? std::min(limits.candidates, config.backbone.vocab)
                                        : config.backbone.vocab),
      max_rows_(PassRows(limits)),
      blocks_(stack_.kv_layout(), DrafterBlocks(limits, stack_.kv_layout(), config.max_drafts())),
      head_input_(limits.max_sequences, config.backbone.d_model),
      logits_(size_t(limits.max_sequences) * PadStride(config.backbone.vocab)),
      ids_(candidates_ < config.backbone.vocab ? size_t(limits.max_sequences) * size_t(candidates_) : 0),
      values_(ids_.size()),
      target_ids_(TargetIds(config)) {
  DSPARK_CHECK_EQ(config.backbone.layers, 1);
  DSPARK_CHECK_EQ(int(target_ids_.size()), head_.n());
  sequences_.reserve(size_t(limits.max_sequences));
  for (int i = 0; i < limits.max_sequences; ++i) sequences_.emplace_back(blocks_, config.backbone.d_model);
  pending_.reserve(size_t(max_rows_));
  segments_.reserve(size_t(max_rows_));
  drafted_.reserve(size_t(limits.max_sequences));
  lanes_.reserve(size_t(limits.max_sequences));
}

SequentialDrafter::~SequentialDrafter() = default;

size_t SequentialDrafter::workspace_bytes() const {
  return stack_.WorkspaceBytes() + taps_.Bytes() + pairs_.Bytes() + head_input_.Bytes() + logits_.Bytes() +
         blocks_.Bytes();
}

SequentialDrafter::Sequence& SequentialDrafter::Find(SequenceId id) {
  const auto at = std::find_if(sequences_.begin(), sequences_.end(),
                               [id](const Sequence& s) { return s.used && s.id == id; });
  DSPARK_CHECK(at != sequences_.end());  // Begin comes first
  return *at;
}

void SequentialDrafter::Begin(SequenceId id, std::span<const int32_t>) {
  const auto known = [id](const Sequence& s) { return s.used && s.id == id; };
  if (std::any_of(sequences_.begin(), sequences_.end(), known)) End(id);
  const auto free =
      std::find_if(sequences_.begin(), sequences_.end(), [](const Sequence& s) { return !s.used; });
  DSPARK_CHECK(free != sequences_.end());  // max_sequences
  free->used = true;
  free->id = id;
  free->rows = 0;
  free->has_state = false;
}

void SequentialDrafter::Resume(SequenceId id, int rows, int32_t) {
  Sequence& sequence = Find(id);
  DSPARK_CHECK_LE(rows, sequence.kv.capacity());
  sequence.rows = rows;
}

// Rows that still wait are written first: others may hold the sequence's blocks.
void SequentialDrafter::End(SequenceId id) {
  Sequence& sequence = Find(id);
  if (std::ranges::any_of(pending_, [&](const Row& row) { return row.sequence == &sequence; })) ReadPending();
  sequence.kv.Truncate(0);
  sequence.used = false;
}

void SequentialDrafter::Observe(std::span<const ObservedRows> rows) {
  for (const ObservedRows& observed : rows) {
    Sequence& sequence = Find(observed.sequence);
    DSPARK_CHECK_EQ(observed.position, sequence.rows);
    DSPARK_CHECK_LE(sequence.rows + int(observed.next.size()), limits_.max_context);
    DSPARK_CHECK(sequence.kv.Reserve(sequence.rows + int(observed.next.size())));  // planned for all
    for (size_t i = 0; i < observed.next.size(); ++i) {
      if (int(pending_.size()) == max_rows_) ReadPending();
      const float* taps = observed.taps + i * observed.taps_stride;
      std::copy_n(taps, taps_.cols(), taps_.Row(int(pending_.size())));
      pending_.push_back({&sequence, sequence.rows++, observed.next[i]});
    }
  }
}

// Lays out a pass, neighbours of one sequence, whose rows come in order, as one segment.
void SequentialDrafter::LayOut(std::span<const Row> rows) {
  rows_ = rows;
  for (const Row& row : rows) DSPARK_CHECK(row.sequence->kv.Reserve(row.position + 1));  // planned for all
  segments_.clear();
  const Row* before = nullptr;
  for (const Row& row : rows) {
    if (before && before->sequence == row.sequence) {
      ++segments_.back().rows;
    } else {
      segments_.push_back({row.sequence->kv.blocks(), int(&row - rows.data()), 1, row.position});
    }
    before = &row;
  }
  stack_.Begin(segments_);
  pairs_.Resize(int(rows.size()), pairs_.cols());
}

// K/V of the pending rows, and the state of every sequence that had some.
void SequentialDrafter::ReadPending() {
  if (pending_.empty()) return;
  LayOut(pending_);
  taps_.Resize(int(pending_.size()), taps_.cols());
  pool_.Run([&](Worker& worker) { RunLayer(worker, true); });
  for (const AttentionSegment& segment : segments_) {
    const int last = segment.first_row + segment.rows - 1;
    Sequence& sequence = *pending_[size_t(last)].sequence;
    std::copy_n(stack_.X(last), sequence.state.size(), sequence.state.data());
    sequence.has_state = true;
  }
  pending_.clear();
}

void SequentialDrafter::MakePairs(Worker& worker, const std::vector<float>& token_norm,
                                  const std::vector<float>& state_norm, WeightFormat format) {
  const int d = config_.backbone.d_model;
  const float eps = config_.backbone.rms_eps;
  const Range share = worker.Share(rows());
  for (int r = share.begin; r < share.end; ++r) {
    float* pair = pairs_.Row(r);
    embedding_.GetRow(rows_[size_t(r)].token, pair);
    RmsNorm(worker.isa(), pair, token_norm.data(), d, eps, pair);
    RmsNorm(worker.isa(), stack_.X(r), state_norm.data(), d, eps, pair + d);
    if (IsQuantized(format)) pairs_.QuantizeRow(r, worker.isa());
  }
  worker.Barrier();
}

void SequentialDrafter::Propose(std::span<ProposeRequest> requests) {
  const auto wants = [](const ProposeRequest& r) { return r.max_tokens > 0 && !r.free_only; };
  if (std::none_of(requests.begin(), requests.end(), wants)) return;
  ReadPending();
  FillLanes(requests);
  for (int drafts = 0; !lanes_.empty(); ++drafts) {
    if (drafts > 0) {
      drafted_.clear();
      for (const Lane& lane : lanes_)
        drafted_.push_back({lane.sequence, lane.sequence->rows + drafts - 1, lane.token});
      LayOut(drafted_);
    }
    head_input_.Resize(int(lanes_.size()), config_.backbone.d_model);
    pool_.Run([&](Worker& worker) {
      if (drafts > 0) RunLayer(worker, false);
      Head(worker);
      Select(worker);
    });
    Draw();
  }
}

void SequentialDrafter::FillLanes(std::span<ProposeRequest> requests) {
  lanes_.clear();
  for (const ProposeRequest& request : requests) {
    if (request.max_tokens <= 0 || request.free_only) continue;
    Sequence& sequence = Find(request.sequence);
    if (!sequence.has_state) continue;
    std::copy(sequence.state.begin(), sequence.state.end(), stack_.X(int(lanes_.size())));
    lanes_.push_back({&request, &sequence, std::min(request.max_tokens, max_tokens())});
  }
}

// Logits of every lane's state.
void SequentialDrafter::Head(Worker& worker) {
  const int d = config_.backbone.d_model;
  const Range share = worker.Share(int(lanes_.size()));
  for (int i = share.begin; i < share.end; ++i) {
    if (config_.head_norm) {
      RmsNorm(worker.isa(), stack_.X(i), weights_.output_norm.data(), d, config_.backbone.rms_eps,
              head_input_.Row(i));
    } else {
      std::copy_n(stack_.X(i), d, head_input_.Row(i));
    }
    if (IsQuantized(head_.format())) head_input_.QuantizeRow(i, worker.isa());
  }
  worker.Barrier();
  MatMul(worker, head_, head_input_, logits_.data(), PadStride(head_.n()));
  worker.Barrier();
}

// The argmax of a greedy lane, the candidates of a sampled one.
void SequentialDrafter::Select(const Worker& worker) {
  const Range share = worker.Share(int(lanes_.size()));
  for (int i = share.begin; i < share.end; ++i) {
    Lane& lane = lanes_[size_t(i)];
    if (!lane.request->sampler) {
      lane.token = target_ids_[size_t(ArgMax(worker.isa(), Logits(i)))];
    } else if (!DrawsFromAll(lane)) {
      FindSampledCandidates(worker.isa(), Logits(i), lane.request->sampler->raised(), config_.draft_to_target,
                            LaneOf(ids_, i), LaneOf(values_, i));
      for (int32_t& id : LaneOf(ids_, i)) id = target_ids_[size_t(id)];
    }
  }
}

int32_t SequentialDrafter::DrawFrom(int lane) {
  const ProposeRequest& request = *lanes_[size_t(lane)].request;
  if (DrawsFromAll(lanes_[size_t(lane)]))
    return request.sampler->Draw(target_ids_, Logits(lane), request.proposal);
  return request.sampler->Draw(LaneOf(ids_, lane), LaneOf(values_, lane), request.proposal);
}

// One more draft for every lane. Those that have enough leave; the others close ranks.
void SequentialDrafter::Draw() {
  size_t kept = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane lane = lanes_[i];
    if (lane.request->sampler) {
      lane.token = DrawFrom(int(i));
    } else {
      lane.request->proposal->tokens.push_back(lane.token);
    }
    if (--lane.most == 0) continue;
    if (kept != i) std::copy_n(stack_.X(int(i)), config_.backbone.d_model, stack_.X(int(kept)));
    lanes_[kept++] = lane;
  }
  lanes_.resize(kept);
}

}  // namespace dspark

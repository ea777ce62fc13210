#include "draft/block_drafter.h"

#include <algorithm>
#include <cmath>

#include "core/clock.h"
#include "draft/candidates.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

// Rows of one pass: blocks of many sequences go in several passes beyond.
constexpr int kMaxBlockRows = 256;
// The likeliest of a slot that a greedy draft looks at before it looks at all.
constexpr int kGreedyCandidates = 16;
// Of a greedy draft under penalties or a bias, whose argmax may lie that much deeper.
constexpr int kPenalisedCandidates = 512;

// Adds the time since it was made, or since the last lap, to a sum of ms.
class Laps {
 public:
  void Lap(double* ms) {
    const double now = NowMs();
    *ms += now - last_;
    last_ = now;
  }

 private:
  double last_ = NowMs();
};

int CandidatesOfSampled(const DrafterLimits& limits, int vocab) {
  return limits.candidates <= 0 ? vocab : std::min(limits.candidates, vocab);
}

LayerStackLimits StackLimits(const DrafterConfig& config, const DrafterLimits& limits, int sequences) {
  return {.max_rows = std::max(BlockDrafter::kPendingRows, sequences * config.block_size),
          .max_context = limits.max_context + config.block_size,
          .block_tokens = limits.block_tokens,
          .kv_type = limits.kv_type};
}

}  // namespace

BlockDrafter::BlockDrafter(const DrafterConfig& config, BlockWeights weights, const Target& target,
                           ThreadPool& pool, const DrafterLimits& limits)
    : config_(config),
      weights_(std::move(weights)),
      pool_(pool),
      embedding_(weights_.common.embedding.n() ? weights_.common.embedding : target.embedding()),
      head_(DraftHead(weights_.common, config_, target, pool, limits, &head_copy_)),
      mask_embedding_(size_t(config.backbone.d_model)),
      vocab_(head_.n()),
      candidates_(CandidatesOfSampled(limits, vocab_)),
      max_candidates_(std::min(vocab_, std::max(kPenalisedCandidates, candidates_))),
      sequences_per_pass_(std::clamp(kMaxBlockRows / config.block_size, 1, limits.max_sequences)),
      max_sequences_(limits.max_sequences),
      stack_(config.backbone, weights_.common.layers, pool.threads(),
             StackLimits(config, limits, sequences_per_pass_)),
      kv_pool_(stack_.kv_layout(), DrafterBlocks(limits, stack_.kv_layout(), config.block_size)),
      fc_input_(kPendingRows, weights_.common.fc.k()),
      context_(kPendingRows, config.backbone.d_model),
      head_input_(sequences_per_pass_ * config.max_drafts(), config.backbone.d_model),
      logits_stride_(PadStride(size_t(vocab_))),
      markov_(weights_.markov, config.backbone.d_model, sequences_per_pass_) {
  const size_t rows = size_t(sequences_per_pass_) * size_t(config.max_drafts());
  embedding_.GetRow(config.mask_token, mask_embedding_.data());
  logits_ = Buffer<float>(rows * logits_stride_);
  top_ids_.resize(rows * size_t(max_candidates_));
  top_logits_.resize(top_ids_.size());
  if (candidates_ == vocab_) {
    all_ids_.resize(size_t(vocab_));
    for (int v = 0; v < vocab_; ++v) all_ids_[size_t(v)] = TargetId(v);
  }
  sequences_.reserve(size_t(max_sequences_));
  pending_.reserve(kPendingRows);
  segments_.reserve(kPendingRows);
  drafts_.reserve(size_t(sequences_per_pass_));
  head_rows_.reserve(rows);
}

size_t BlockDrafter::weight_bytes() const {
  return weights_.common.storage.Bytes() + weights_.markov.w1.Bytes() + weights_.markov.w2.Bytes() +
         head_copy_.Bytes();
}

size_t BlockDrafter::workspace_bytes() const {
  return stack_.WorkspaceBytes() + kv_pool_.Bytes() + fc_input_.Bytes() + context_.Bytes() +
         head_input_.Bytes() + logits_.Bytes() + markov_.Bytes() +
         top_ids_.size() * (sizeof(int32_t) + sizeof(float));
}

void BlockDrafter::Begin(SequenceId sequence, std::span<const int32_t>) {
  DSPARK_CHECK_LT(int(sequences_.size()), max_sequences_);
  sequences_.push_back({.id = sequence, .kv = KvTable(kv_pool_)});
}

BlockDrafter::Sequence& BlockDrafter::Find(SequenceId id) {
  const auto it = std::find_if(sequences_.begin(), sequences_.end(), [&](auto& s) { return s.id == id; });
  DSPARK_CHECK(it != sequences_.end());
  return *it;
}

void BlockDrafter::Resume(SequenceId id, int rows, int32_t next) {
  Sequence& sequence = Find(id);
  DSPARK_CHECK_LE(rows, sequence.kv.capacity());
  sequence.rows = rows;
  sequence.newest = next;
}

// Rows that still wait are written first: others may hold the sequence's blocks.
void BlockDrafter::End(SequenceId id) {
  if (std::ranges::any_of(pending_, [id](const Pending& p) { return p.sequence == id; })) Flush();
  sequences_.erase(sequences_.begin() + (&Find(id) - sequences_.data()));
}

void BlockDrafter::Observe(std::span<const ObservedRows> observed) {
  for (const ObservedRows& rows : observed) {
    if (rows.next.empty()) continue;
    Sequence& sequence = Find(rows.sequence);
    DSPARK_CHECK_EQ(rows.position, sequence.rows);
    for (size_t i = 0; i < rows.next.size(); ++i) Append(sequence, rows.taps + i * rows.taps_stride);
    sequence.newest = rows.next.back();
  }
}

void BlockDrafter::Append(Sequence& sequence, const float* taps) {
  if (pending_rows_ == kPendingRows) Flush();
  if (pending_.empty() || pending_.back().sequence != sequence.id)
    pending_.push_back({sequence.id, sequence.rows, pending_rows_, 0});
  DSPARK_CHECK(sequence.kv.Reserve(sequence.rows + 1));
  std::copy_n(taps, fc_input_.cols(), fc_input_.Row(pending_rows_));
  ++pending_.back().rows;
  ++pending_rows_;
  ++sequence.rows;
}

// Projects all pending rows and keeps their K and V.
void BlockDrafter::Flush() {
  if (pending_rows_ == 0) return;
  Laps laps;
  segments_.clear();
  for (const Pending& p : pending_) {
    segments_.push_back({Find(p.sequence).kv.blocks(), p.first_row, p.rows, p.position});
  }
  stack_.Begin(segments_);
  fc_input_.Resize(pending_rows_, fc_input_.cols());
  context_.Resize(pending_rows_, config_.backbone.d_model);
  pool_.Run([&](Worker& worker) { FlushRows(worker); });
  pending_.clear();
  pending_rows_ = 0;
  laps.Lap(&times_.flush);
}

void BlockDrafter::FlushRows(Worker& worker) {
  const DraftWeights& w = weights_.common;
  const int d = config_.backbone.d_model;
  const Range share = worker.Share(pending_rows_);
  if (IsQuantized(w.fc.format())) {
    for (int r = share.begin; r < share.end; ++r) fc_input_.QuantizeRow(r, worker.isa());
    worker.Barrier();
  }
  MatMul(worker, w.fc, fc_input_, context_.Row(0), context_.stride());
  worker.Barrier();
  for (int r = share.begin; r < share.end; ++r) {
    float* row = context_.Row(r);
    for (size_t i = 0; i < w.fc_bias.size(); ++i) row[i] += w.fc_bias[i];
    RmsNorm(worker.isa(), row, weights_.context_norm.data(), d, config_.backbone.rms_eps, row);
    if (stack_.normed_int8()) context_.QuantizeRow(r, worker.isa());
  }
  worker.Barrier();
  for (size_t layer = 0; layer < w.layers.size(); ++layer)
    stack_.StoreContext(worker, w.layers[layer], int(layer), context_);
}

void BlockDrafter::Propose(std::span<ProposeRequest> requests) {
  drafts_.clear();
  for (ProposeRequest& request : requests) {
    Sequence& sequence = Find(request.sequence);
    if (request.free_only || request.max_tokens <= 0 || sequence.rows == 0) continue;
    if (int(drafts_.size()) == sequences_per_pass_) RunBlocks();
    AddDraft(request, sequence);
  }
  RunBlocks();
}

// Lays out the block of one more sequence: γ slots whatever is asked for, for they see each other (§5.3).
void BlockDrafter::AddDraft(ProposeRequest& request, Sequence& sequence) {
  if (drafts_.empty()) {
    Flush();
    segments_.clear();
    head_rows_.clear();
  }
  const int slots = config_.block_size, first_row = int(drafts_.size()) * slots;
  DSPARK_CHECK(sequence.kv.Reserve(sequence.rows + slots));
  segments_.push_back({sequence.kv.blocks(), first_row, slots, sequence.rows, true});
  drafts_.push_back({.request = &request,
                     .drafts = std::min(request.max_tokens, max_tokens()),
                     .first = int(head_rows_.size()),
                     .previous = sequence.newest,
                     .greedy = !request.sampler || (!config_.anchor_first && !request.sampler->greedy())});
  for (int i = 0; i < drafts_.back().drafts; ++i) head_rows_.push_back(first_row + SlotsWithoutDraft() + i);
}

void BlockDrafter::RunBlocks() {
  if (drafts_.empty()) return;
  stack_.Begin(segments_);
  head_input_.Resize(int(head_rows_.size()), config_.backbone.d_model);
  if (HasMarkov()) markov_.Begin(int(drafts_.size()));
  pool_.Run([&](Worker& worker) { Run(worker); });
  drafts_.clear();
}

void BlockDrafter::Run(Worker& worker) {
  Laps laps;
  const auto lap = [&](double* ms) {
    if (worker.index() == 0) laps.Lap(ms);
  };
  Embed(worker);
  worker.Barrier();
  Layers(worker);
  lap(&times_.layers);
  Head(worker);
  worker.Barrier();
  FindCandidates(worker);
  worker.Barrier();
  lap(&times_.head);
  Chain(worker);
  lap(&times_.chain);
}

void BlockDrafter::Layers(Worker& worker) {
  const std::vector<LayerWeights>& layers = weights_.common.layers;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    stack_.AttentionBlock(worker, layers[layer], int(layer));
    stack_.FfnBlock(worker, layers[layer]);
  }
}

void BlockDrafter::Embed(const Worker& worker) {
  const Range rows = worker.Share(stack_.rows());
  for (int r = rows.begin; r < rows.end; ++r) {
    const int draft = r / config_.block_size, slot = r % config_.block_size;
    if (slot == 0) {
      embedding_.GetRow(drafts_[size_t(draft)].previous, stack_.X(r));
    } else {
      std::copy(mask_embedding_.begin(), mask_embedding_.end(), stack_.X(r));
    }
  }
}

// U = head · h of the slots that propose.
void BlockDrafter::Head(Worker& worker) {
  const Range rows = worker.Share(int(head_rows_.size()));
  for (int i = rows.begin; i < rows.end; ++i) {
    RmsNorm(worker.isa(), stack_.X(head_rows_[size_t(i)]), weights_.common.output_norm.data(),
            config_.backbone.d_model, config_.backbone.rms_eps, head_input_.Row(i));
    if (IsQuantized(head_.format())) head_input_.QuantizeRow(i, worker.isa());
  }
  worker.Barrier();
  MatMul(worker, head_, head_input_, logits_.data(), logits_stride_);
}

// How many of a slot's likeliest tokens FindCandidates lists; 0: none, all are drawn from.
int BlockDrafter::CandidatesOf(const Draft& draft) const {
  if (!draft.greedy && candidates_ == vocab_) return 0;
  if (!draft.greedy) return draft.request->sampler->greedy() ? max_candidates_ : candidates_;
  return HasMarkov() ? std::min(kGreedyCandidates, vocab_) : 1;
}

void BlockDrafter::FindCandidates(const Worker& worker) {
  const Range rows = worker.Share(int(head_rows_.size()));
  for (const Draft& draft : drafts_) {
    const int count = CandidatesOf(draft);
    const int begin = std::max(rows.begin, draft.first);
    const int end = std::min(rows.end, draft.first + draft.drafts);
    for (int row = begin; row < end && count > 0; ++row) {
      const auto ids = TopIds(row).first(size_t(count));
      const auto logits = TopLogits(row).first(size_t(count));
      if (draft.greedy) {
        TopK(worker.isa(), Logits(row), count, ids.data(), logits.data());
      } else {
        FindSampledCandidates(worker.isa(), Logits(row), draft.request->sampler->raised(),
                              config_.draft_to_target, ids, logits);
      }
      if (!HasMarkov()) continue;
      for (int i = 0; i < count; ++i) weights_.markov.w2.Prefetch(TopIds(row)[size_t(i)]);
    }
  }
}

// Slot by slot, each on the token of the slot before. Sequences are dealt out to workers, but that all
// samplers are called by worker 0, on the thread that proposes.
void BlockDrafter::Chain(Worker& worker) {
  const int count = int(drafts_.size());
  int slots = 0;
  for (const Draft& draft : drafts_) slots = std::max(slots, draft.drafts);
  const auto for_mine = [&](int slot, auto f) {
    for (int i = 0; i < count; ++i) {
      const Draft& draft = drafts_[size_t(i)];
      const int owner = draft.greedy ? i % worker.count() : 0;
      if (slot < draft.drafts && owner == worker.index()) f(i);
    }
  };
  for (int slot = 0; slot < slots; ++slot) {
    if (HasMarkov()) {
      for_mine(slot, [&](int i) {
        const Draft& draft = drafts_[size_t(i)];
        markov_.Read(worker.isa(), i, draft.previous, head_input_.Row(draft.first + slot));
      });
      if (markov_.mixes()) worker.Barrier();
      markov_.Mix(worker);
      for_mine(slot, [&](int i) { markov_.Finish(worker.isa(), i); });
    }
    for_mine(slot, [&](int i) { DecideSlot(worker.isa(), i, slot); });
  }
}

void BlockDrafter::DecideSlot(Isa isa, int index, int slot) {
  Draft& draft = drafts_[size_t(index)];
  Proposal& proposal = *draft.request->proposal;
  const int row = draft.first + slot;
  const float* g = HasMarkov() ? markov_.factor(index) : nullptr;
  if (!weights_.confidence.empty()) proposal.confidence.push_back(Confidence(isa, index, slot));
  if (!draft.greedy) {
    draft.previous = DrawSampled(isa, draft, row, g);
    return;
  }
  const auto top = TopIds(row).first(size_t(CandidatesOf(draft)));
  const int32_t best = g ? CorrectedArgMax(isa, weights_.markov, Logits(row), top, g) : top[0];
  draft.previous = TargetId(best);
  proposal.tokens.push_back(draft.previous);
}

// Lets the sampler draw among the candidates, whose logits are corrected: g is null without a Markov head.
int32_t BlockDrafter::DrawSampled(Isa isa, const Draft& draft, int row, const float* g) {
  const RowTable& w2 = weights_.markov.w2;
  const int count = CandidatesOf(draft);
  if (count == 0) {
    const std::span<float> logits = Logits(row);
    for (int v = 0; g && v < vocab_; ++v) logits[size_t(v)] += w2.Dot(isa, v, g);
    return draft.request->sampler->Draw(all_ids_, logits, draft.request->proposal);
  }
  const auto ids = TopIds(row).first(size_t(count));
  const auto logits = TopLogits(row).first(size_t(count));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (g) logits[i] += w2.Dot(isa, ids[i], g);
    ids[i] = TargetId(ids[i]);
  }
  return draft.request->sampler->Draw(ids, logits, draft.request->proposal);
}

// c = σ((w · [h ; e] + b) / T), of §2.7 and §10.
float BlockDrafter::Confidence(Isa isa, int index, int slot) const {
  const int d = config_.backbone.d_model, row = drafts_[size_t(index)].first + slot;
  const float* w = weights_.confidence.data();
  float logit = Dot(isa, w, head_input_.Row(row), d) + weights_.confidence_offset[0];
  if (config_.confidence_with_markov) logit += Dot(isa, w + d, markov_.embedding(index), markov_.rank());
  if (!config_.confidence_temperatures.empty()) logit /= config_.confidence_temperatures[size_t(slot)];
  return 1 / (1 + std::exp(-logit));
}

Result<std::unique_ptr<Drafter>> LoadBlockDrafter(const DrafterFiles& files, const Target& target,
                                                  ThreadPool& pool, const DrafterLimits& limits) {
  const DrafterConfig& config = files.config;
  const int d = config.backbone.d_model;
  BlockWeights weights;
  WeightSlots slots;
  slots.vectors.push_back({"enc.output_norm.weight", d, &weights.context_norm});
  AddMarkovSlots(config, &weights.markov, &slots);
  if (config.confidence) {
    const int columns = d + (config.confidence_with_markov ? config.markov_rank : 0);
    slots.vectors.push_back({"conf_proj.weight", columns, &weights.confidence});
    slots.vectors.push_back({"conf_proj.bias", 1, &weights.confidence_offset});
  }
  DSPARK_RETURN_IF_ERROR(PackDraftWeights(files, pool, limits, d, slots, &weights.common));
  MeasureNorms(pool, &weights.markov);
  return std::unique_ptr<Drafter>(
      std::make_unique<BlockDrafter>(config, std::move(weights), target, pool, limits));
}

}  // namespace dspark

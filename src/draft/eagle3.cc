#include "draft/eagle3.h"

#include <algorithm>

namespace dspark {
namespace {

// A file may hold q, k and v in different formats: a quantised one, if any, decides what their input needs.
WeightFormat FormatOfPairs(const LayerWeights& layer) {
  for (const PackedMatrix* m : {&layer.wq, &layer.wk}) {
    if (IsQuantized(m->format())) return m->format();
  }
  return layer.wv.format();
}

}  // namespace

Result<std::unique_ptr<Drafter>> Eagle3::Load(const DrafterFiles& files, const Target& target,
                                              ThreadPool& pool, const DrafterLimits& limits) {
  const int d = files.config.backbone.d_model;
  std::vector<float> state_norm;
  WeightSlots own;
  own.vectors.push_back({"blk.0.attn_norm_2.weight", d, &state_norm});
  DraftWeights weights;
  DSPARK_RETURN_IF_ERROR(PackDraftWeights(files, pool, limits, 2 * d, own, &weights));
  return std::unique_ptr<Drafter>(
      new Eagle3(files.config, std::move(weights), std::move(state_norm), target, pool, limits));
}

Eagle3::Eagle3(const DrafterConfig& config, DraftWeights weights, std::vector<float> state_norm,
               const Target& target, ThreadPool& pool, const DrafterLimits& limits)
    : SequentialDrafter(config, std::move(weights), target, pool, limits,
                        int(config.taps.size()) * config.target_width),
      state_norm_(std::move(state_norm)),
      qkv_format_(FormatOfPairs(layer())) {}

void Eagle3::RunLayer(Worker& worker, bool observed) {
  if (observed) Fuse(worker);
  MakePairs(worker, layer().attn_norm, state_norm_, qkv_format_);
  if (config_.norm_before_residual) {
    const int d = config_.backbone.d_model;
    const Range share = worker.Share(rows());
    for (int r = share.begin; r < share.end; ++r) std::copy_n(pairs_.Row(r) + d, d, stack_.X(r));
    worker.Barrier();
  }
  stack_.Attend(worker, layer(), 0, pairs_);
  stack_.FfnBlock(worker, layer());
}

// X = fc · taps (+ bias).
void Eagle3::Fuse(Worker& worker) {
  const int d = config_.backbone.d_model;
  const Range share = worker.Share(rows());
  if (IsQuantized(weights_.fc.format())) {
    for (int r = share.begin; r < share.end; ++r) taps_.QuantizeRow(r, worker.isa());
    worker.Barrier();
  }
  MatMul(worker, weights_.fc, taps_, stack_.X(0), PadStride(d));
  worker.Barrier();
  if (weights_.fc_bias.empty()) return;
  for (int r = share.begin; r < share.end; ++r) {
    for (int i = 0; i < d; ++i) stack_.X(r)[i] += weights_.fc_bias[size_t(i)];
  }
}

}  // namespace dspark

#include "draft/mtp.h"

#include <algorithm>

namespace dspark {

Result<std::unique_ptr<Drafter>> Mtp::Load(const DrafterFiles& files, const Target& target, ThreadPool& pool,
                                           const DrafterLimits& limits) {
  const int d = files.config.backbone.d_model;
  OwnWeights own;
  WeightSlots slots;
  slots.matrices.push_back({"nextn.eh_proj.weight", d, 2 * d, &own.projection});
  slots.vectors.push_back({"nextn.enorm.weight", d, &own.token_norm});
  slots.vectors.push_back({"nextn.hnorm.weight", d, &own.state_norm});
  DraftWeights weights;
  DSPARK_RETURN_IF_ERROR(PackDraftWeights(files, pool, limits, d, slots, &weights));
  return std::unique_ptr<Drafter>(
      new Mtp(files.config, std::move(weights), std::move(own), target, pool, limits));
}

Mtp::Mtp(const DrafterConfig& config, DraftWeights weights, OwnWeights own, const Target& target,
         ThreadPool& pool, const DrafterLimits& limits)
    : SequentialDrafter(config, std::move(weights), target, pool, limits, config.target_width),
      own_(std::move(own)),
      final_norm_(target.config().layers) {}

void Mtp::RunLayer(Worker& worker, bool observed) {
  const int d = config_.backbone.d_model;
  if (observed) {
    const Range share = worker.Share(rows());
    for (int r = share.begin; r < share.end; ++r) std::copy_n(taps_.Row(r), d, stack_.X(r));
  }
  MakePairs(worker, own_.token_norm, own_.state_norm, own_.projection.format());
  MatMul(worker, own_.projection, pairs_, stack_.X(0), PadStride(d));
  worker.Barrier();
  stack_.AttentionBlock(worker, layer(), 0);
  stack_.FfnBlock(worker, layer());
}

}  // namespace dspark

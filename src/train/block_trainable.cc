#include "train/block_trainable.h"

namespace dspark {
namespace {

class BlockItem : public TrainItem {
 public:
  BlockItem(const BlockRun& run, const TrainSample& sample, BlockSlots slots)
      : run_(run), sample_(sample), slots_(std::move(slots)) {}

  int64_t anchors() const override { return slots_.blocks; }
  double weight() const override { return slots_.WeightSum(); }
  torch::Tensor Loss(const Weights& weights, double denominator, BlockMetrics* metrics) const override {
    const BlockLoss loss = ComputeBlockLoss(run_, weights, sample_, slots_, denominator);
    if (!loss.total.defined()) return {};
    const SlotValues& v = loss.values;
    const torch::Tensor ce = v.ce.cpu(), l1 = v.l1.cpu();
    const torch::Tensor confidence = v.confidence.defined() ? v.confidence.cpu() : torch::Tensor();
    metrics->Add(slots_, v.slots, ce.data_ptr<float>(), l1.data_ptr<float>(),
                 confidence.defined() ? confidence.data_ptr<float>() : nullptr);
    return loss.total;
  }

 private:
  const BlockRun& run_;
  const TrainSample& sample_;
  const BlockSlots slots_;
};

class BlockTrainable : public TrainableDrafter {
 public:
  BlockTrainable(BlockRun run, const BlockChoice& choice) : run_(std::move(run)), choice_(choice) {}

  int drafts() const override { return run_.config.block_size; }
  std::unique_ptr<TrainItem> MakeItem(const TrainSample& sample, int64_t epoch,
                                      int64_t index) const override {
    const auto keys = AnchorKeys(choice_.seed, epoch, index, sample.ids.size());
    const auto anchors = SampleAnchors(sample.loss_mask, keys, choice_.anchors);
    return std::make_unique<BlockItem>(
        run_, sample,
        MakeBlockSlots(sample.ids, sample.loss_mask, anchors, run_.config.block_size, float(choice_.decay)));
  }

 private:
  const BlockRun run_;
  const BlockChoice choice_;
};

}  // namespace

std::unique_ptr<TrainableDrafter> MakeBlockTrainable(BlockRun run, const BlockChoice& choice) {
  return std::make_unique<BlockTrainable>(std::move(run), choice);
}

}  // namespace dspark

#include "train/sequential_trainable.h"

#include <algorithm>

namespace dspark {
namespace {

class SequentialItem : public TrainItem {
 public:
  SequentialItem(const SequentialRun& run, const TrainSample& sample, StepRows rows)
      : run_(run), sample_(sample), rows_(std::move(rows)) {}

  int64_t anchors() const override { return int64_t(rows_.rows.size()); }
  double weight() const override { return rows_.weight; }
  torch::Tensor Loss(const Weights& weights, double denominator, BlockMetrics* metrics) const override {
    const SequentialLoss loss = ComputeSequentialLoss(run_, weights, sample_, rows_, denominator);
    if (loss.total.defined()) AddMetrics(rows_, loss, metrics);
    return loss.total;
  }

 private:
  const SequentialRun& run_;
  const TrainSample& sample_;
  const StepRows rows_;
};

class SequentialTrainable : public TrainableDrafter {
 public:
  SequentialTrainable(SequentialRun run, double decay) : run_(std::move(run)), decay_(decay) {}

  int drafts() const override { return run_.config.block_size; }
  std::unique_ptr<TrainItem> MakeItem(const TrainSample& sample, int64_t, int64_t) const override {
    return std::make_unique<SequentialItem>(
        run_, sample,
        ChooseRows(run_.config.kind, sample.loss_mask, run_.config.block_size, decay_, sample.left_out));
  }

 private:
  const SequentialRun run_;
  const double decay_;
};

}  // namespace

void AddMetrics(const StepRows& rows, const SequentialLoss& loss, BlockMetrics* metrics) {
  const torch::Tensor ce = loss.ce.cpu(), l1 = loss.l1.cpu();
  std::vector<double> accepted(rows.valid.size());
  for (size_t i = 0; i < loss.at.size(); ++i) {
    const auto at = size_t(loss.at[i]);
    const double distance = double(l1.data_ptr<float>()[i]);
    accepted[at] = std::clamp(1 - 0.5 * distance, 0.0, 1.0);
    metrics->AddDraft(int(at % size_t(rows.steps)), double(rows.weights[at]), double(ce.data_ptr<float>()[i]),
                      distance);
  }
  for (size_t row = 0; row < rows.rows.size(); ++row) {
    const auto first = size_t(rows.at(row, 0));
    if (!rows.valid[first]) continue;
    double tau = 1, survival = 1;
    for (int k = 0; k < rows.steps; ++k) tau += survival *= accepted[first + size_t(k)];
    metrics->AddBlock(tau);
  }
}

std::unique_ptr<TrainableDrafter> MakeSequentialTrainable(SequentialRun run, double decay) {
  return std::make_unique<SequentialTrainable>(std::move(run), decay);
}

}  // namespace dspark

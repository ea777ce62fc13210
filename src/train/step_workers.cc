#include "train/step_workers.h"

#include <ATen/Parallel.h>
#include <torch/autograd.h>

#include <algorithm>
#include <numeric>
#include <thread>

namespace dspark {

StepWorkers::StepWorkers(const BlockRun& run, const Parameters& parameters, int threads)
    : run_(run), parameters_(parameters), workers_(size_t(threads)) {
  for (Worker& worker : workers_) worker.weights = parameters.MakeWeights();
}

// The dearest sample first, each to the thread with the least to do: the same way whenever it is asked.
void StepWorkers::Assign(const std::vector<TrainItem>& items) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return items[i].slots.blocks; });
  std::vector<int64_t> load(workers_.size());
  for (Worker& worker : workers_) worker.items.clear();
  for (const size_t i : order) {
    if (items[i].slots.blocks == 0) continue;
    const size_t least = size_t(std::ranges::min_element(load) - load.begin());
    workers_[least].items.push_back(i);
    load[least] += items[i].slots.blocks;
  }
}

void StepWorkers::RunWorker(const std::vector<TrainItem>& items, double denominator, double share,
                            Worker* worker) {
  for (const size_t i : worker->items) {
    const TrainItem& item = items[i];
    const BlockLoss loss = ComputeBlockLoss(run_, worker->weights, *item.sample, item.slots, denominator);
    if (!loss.total.defined()) continue;
    worker->loss += loss.total.item<double>() * share;
    (loss.total * share).backward();
    const SlotValues& v = loss.values;
    const torch::Tensor ce = v.ce.cpu(), l1 = v.l1.cpu();
    const torch::Tensor confidence = v.confidence.defined() ? v.confidence.cpu() : torch::Tensor();
    worker->metrics.Add(item.slots, v.slots, ce.data_ptr<float>(), l1.data_ptr<float>(),
                        confidence.defined() ? confidence.data_ptr<float>() : nullptr);
  }
}

double StepWorkers::RunGroup(const std::vector<TrainItem>& items, double denominator, int groups,
                             BlockMetrics* metrics) {
  Assign(items);
  std::vector<std::thread> threads;
  for (Worker& worker : workers_) {
    worker.loss = 0;
    worker.metrics = BlockMetrics(run_.config.block_size);
    threads.emplace_back([&] {
      at::set_num_threads(1);  // of this thread's products
      RunWorker(items, denominator, 1.0 / groups, &worker);
    });
  }
  double loss = 0;
  for (size_t i = 0; i < threads.size(); ++i) {
    threads[i].join();
    loss += workers_[i].loss;
    metrics->Add(workers_[i].metrics);
  }
  return loss;
}

std::vector<torch::Tensor> StepWorkers::TakeGradients() {
  std::vector<torch::Tensor> gradients;
  for (const Parameter& p : parameters_.all()) {
    torch::Tensor sum;
    for (Worker& worker : workers_) {
      torch::Tensor& gradient = worker.weights.find(p.name)->second.leaf.mutable_grad();
      if (!gradient.defined()) continue;
      sum = sum.defined() ? sum.add_(gradient) : gradient;
      gradient = torch::Tensor();
    }
    gradients.push_back(sum.defined() ? sum.contiguous() : torch::zeros_like(p.master));
  }
  return gradients;
}

}  // namespace dspark

#include "train/step_workers.h"

#include <ATen/Parallel.h>
#include <torch/autograd.h>

#include <algorithm>
#include <numeric>
#include <thread>

namespace dspark {

StepWorkers::StepWorkers(const Parameters& parameters, int drafts, int threads)
    : parameters_(parameters), drafts_(drafts), workers_(size_t(threads)) {
  for (Worker& worker : workers_) worker.weights = parameters.MakeWeights();
}

// The dearest sample first, each to the thread with the least to do: the same way whenever it is asked.
void StepWorkers::Assign(const TrainItems& items) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return items[i]->anchors(); });
  std::vector<int64_t> load(workers_.size());
  for (Worker& worker : workers_) worker.items.clear();
  for (const size_t i : order) {
    if (items[i]->anchors() == 0) continue;
    const size_t least = size_t(std::ranges::min_element(load) - load.begin());
    workers_[least].items.push_back(i);
    load[least] += items[i]->anchors();
  }
}

void StepWorkers::RunWorker(const TrainItems& items, double denominator, double share, Worker* worker) {
  for (const size_t i : worker->items) {
    const torch::Tensor loss = items[i]->Loss(worker->weights, denominator, &worker->metrics);
    if (!loss.defined()) continue;
    worker->loss += loss.item<double>() * share;
    (loss * share).backward();
  }
}

double StepWorkers::RunGroup(const TrainItems& items, double denominator, int groups, BlockMetrics* metrics) {
  Assign(items);
  std::vector<std::thread> threads;
  for (Worker& worker : workers_) {
    worker.loss = 0;
    worker.metrics = BlockMetrics(drafts_);
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

#include "train/adamw.h"

#include <cmath>

namespace dspark {

AdamW::AdamW(Parameters* parameters, const AdamOptions& options)
    : parameters_(*parameters), options_(options) {
  for (const Parameter& p : parameters_.all()) {
    first.push_back(torch::zeros_like(p.master));
    second.push_back(torch::zeros_like(p.master));
  }
}

double AdamW::Step(std::vector<torch::Tensor>& gradients, double learning_rate) {
  const at::NoGradGuard no_grad;
  double squares = 0;
  for (const torch::Tensor& g : gradients) {
    const double norm = g.norm().item<double>();
    squares += norm * norm;
  }
  const double norm = std::sqrt(squares), clip = std::min(1.0, options_.clip / (norm + 1e-6));
  ++steps;
  const double bias1 = 1 - std::pow(options_.beta1, double(steps));
  const double bias2 = std::sqrt(1 - std::pow(options_.beta2, double(steps)));
  for (size_t i = 0; i < gradients.size(); ++i) {
    torch::Tensor &master = parameters_.all()[i].master, &g = gradients[i];
    g.mul_(clip);
    if (options_.weight_decay > 0) master.mul_(1 - learning_rate * options_.weight_decay);
    first[i].mul_(options_.beta1).add_(g, 1 - options_.beta1);
    second[i].mul_(options_.beta2).addcmul_(g, g, 1 - options_.beta2);
    master.addcdiv_(first[i], second[i].sqrt().div_(bias2).add_(options_.eps), -learning_rate / bias1);
  }
  parameters_.RefreshLow();
  return norm;
}

}  // namespace dspark

#include "train/products.h"

#include <torch/autograd.h>

#include <cmath>

namespace dspark {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// A product in a lower precision than what goes in and comes out. Only `low`, a copy of `weight`, is read.
struct LowLinear : Function<LowLinear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& low) {
    (void)weight;
    const Tensor x_low = x.to(low.scalar_type());
    context->save_for_backward({x_low, low});
    return x_low.mm(low.t()).to(torch::kFloat32);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor g = gradients[0].to(saved[1].scalar_type());
    Tensor dx, dw;
    if (context->needs_input_grad(0)) dx = g.mm(saved[1]).to(torch::kFloat32);
    if (context->needs_input_grad(1)) dw = g.t().mm(saved[0]).to(torch::kFloat32);
    return {dx, dw, {}};
  }
};

struct RmsNormFunction : Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double eps) {
    const Tensor scale = x.square().mean(-1, true).add_(eps).rsqrt_();
    context->save_for_backward({x, weight, scale});
    return x.mul(scale).mul_(weight);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &weight = saved[1], &scale = saved[2], unit = saved[0].mul(scale);
    const Tensor product = gradients[0].mul(unit);
    std::vector<int64_t> rows(size_t(unit.dim() - 1));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = int64_t(i);
    const Tensor dw = product.sum(rows);
    const Tensor mean = product.mul(weight).mean(-1, true);
    return {gradients[0].mul(weight).sub_(unit.mul(mean)).mul_(scale), dw, {}};
  }
};

}  // namespace

const Weight& Find(const Weights& weights, std::string_view name) {
  const auto it = weights.find(name);
  if (it == weights.end()) CheckFailed(__FILE__, __LINE__, fmt::format("no parameter {}", name));
  return it->second;
}

const Weight& OfLayer(const Weights& weights, int layer, std::string_view name) {
  return Find(weights, fmt::format("layers.{}.{}.weight", layer, name));
}

Tensor RowsOf(const Tensor& table, const std::vector<int64_t>& ids) {
  return table.index_select(0, torch::tensor(ids).to(table.device())).to(torch::kFloat32);
}

Tensor CopyOfRows(const std::vector<float>& values, int64_t n, torch::Device device) {
  const std::vector<int64_t> shape = {n, int64_t(values.size()) / n};
  return torch::from_blob(const_cast<float*>(values.data()), shape).clone().to(device);
}

Tensor Linear(const Tensor& x, const Weight& weight) {
  if (weight.low.scalar_type() == torch::kFloat32) return x.mm(weight.leaf.t());
  return LowLinear::apply(x, weight.leaf, weight.low);
}

Tensor Mlp(const Weights& weights, int layer, const Tensor& x, double eps) {
  const auto weight = [&](std::string_view name) -> const Weight& { return OfLayer(weights, layer, name); };
  const Tensor xn = RmsNorm(x, weight("post_attention_layernorm").leaf, eps);
  const Tensor gate = torch::silu(Linear(xn, weight("mlp.gate_proj")));
  return Linear(gate * Linear(xn, weight("mlp.up_proj")), weight("mlp.down_proj"));
}

Tensor RmsNorm(const Tensor& x, const Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

Rope MakeRope(const Tensor& positions, const ModelConfig& config) {
  const int pairs = config.head_dim / 2;
  std::vector<double> frequencies(static_cast<size_t>(pairs));
  for (int i = 0; i < pairs; ++i) {
    const double divisor = config.rope_freq_divisors.empty() ? 1 : config.rope_freq_divisors[size_t(i)];
    frequencies[size_t(i)] = std::pow(double(config.rope_theta), -2.0 * i / config.head_dim) / divisor;
  }
  const Tensor f = torch::tensor(frequencies, torch::kFloat64).to(positions.device());
  const Tensor angles = positions.to(torch::kFloat64).unsqueeze(1).mul(f).unsqueeze(1);
  return {angles.cos().to(torch::kFloat32), angles.sin().to(torch::kFloat32)};
}

Tensor Rotate(const Tensor& x, const Rope& rope) {
  const std::vector<Tensor> half = x.chunk(2, -1);
  return torch::cat({half[0] * rope.cos - half[1] * rope.sin, half[1] * rope.cos + half[0] * rope.sin}, -1);
}

}  // namespace dspark

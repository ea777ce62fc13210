// Differentiable building blocks of the drafters' training passes. Activations are fp32 rows [n, width];
// products run in the precision of the weights' copies.
#pragma once

#include "train/parameters.h"

namespace dspark {

const Weight& Find(const Weights& weights, std::string_view name);
// "layers.{layer}.{name}.weight".
const Weight& OfLayer(const Weights& weights, int layer, std::string_view name);

// Rows `ids` of a table as fp32, without gradients.
torch::Tensor RowsOf(const torch::Tensor& table, const std::vector<int64_t>& ids);
// [n, width]: a copy of `values`, n rows side by side, on `device`.
torch::Tensor CopyOfRows(const std::vector<float>& values, int64_t n, torch::Device device);

// x · Wᵀ, [n, out]: x [n, in]; gradients of both, each product in W's precision.
torch::Tensor Linear(const torch::Tensor& x, const Weight& weight);

// Ffn(RMS(x)) of a layer, SwiGLU: x [n, d].
torch::Tensor Mlp(const Weights& weights, int layer, const torch::Tensor& x, double eps);

// x / rms(x) · w over the last dimension.
torch::Tensor RmsNorm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

// Rotation by position (halves (i, i + hd/2)): cos and sin [n, 1, hd / 2] of rows at `positions` [n].
struct Rope {
  torch::Tensor cos, sin;
};
Rope MakeRope(const torch::Tensor& positions, const ModelConfig& config);
// x: [n, heads, hd].
torch::Tensor Rotate(const torch::Tensor& x, const Rope& rope);

}  // namespace dspark

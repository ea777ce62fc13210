// Attention of drafters that draft a token a step, while they train on all rows of a sample at once
// (drafters.md §6.3): row i of step k sees rows 0 … i of step 0 and its own rows of steps 1 … k.
#pragma once

#include <torch/types.h>

#include <vector>

namespace dspark {

// q: [n, H, hd], the queries of rows `rows` (ascending); keys, values: [c, KV, hd], c > rows.back(), of step
// 0; own_keys, own_values: [n, k, KV, hd] of the later steps, undefined at step 0. All fp32, rotated. Result
// [n, H * hd]. Products run in `precision`. Memory: the scores of some rows at a time; what the backward pass
// needs of them it computes again.
torch::Tensor StepAttention(const torch::Tensor& q, const torch::Tensor& keys, const torch::Tensor& values,
                            const torch::Tensor& own_keys, const torch::Tensor& own_values,
                            const std::vector<int64_t>& rows, torch::ScalarType precision);

}  // namespace dspark

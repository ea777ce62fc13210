// Attention of draft blocks (drafters.md §3.5): a slot sees the context before its block's anchor and the γ
// slots of its own block, and nothing else.
#pragma once

#include <torch/types.h>

#include <vector>

namespace dspark {

struct BlockLayout {
  int context = 0;           // c rows: positions 0 … c - 1
  std::vector<int> anchors;  // [B] ascending, each <= c
  int gamma = 0;
};

// q: [B * γ, H, hd]; k, v: [c + B * γ, KV, hd], context rows first; all fp32, rotated. Result [B * γ, H *
// hd]. Products run in `precision`. Memory: the scores of some blocks at a time, with the context before the
// last of them; what the backward pass needs of them it computes again.
torch::Tensor BlockAttention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                             const BlockLayout& layout, torch::ScalarType precision);

}  // namespace dspark

#include "train/block_attention.h"

#include <torch/autograd.h>

#include <cmath>
#include <limits>

namespace dspark {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Blocks that share one product: neighbours see nearly the same context, and the more they are the more of
// the scores among their own slots are masked.
constexpr int kGroup = 16;

// The rows of one group: queries and keys [heads of K, rows, hd].
struct Group {
  int first, rows;  // slots
  int context;      // keys 0 … context - 1 are positions
  Tensor hidden;    // [rows, context + rows]: true where a query must not look
};

std::vector<Group> MakeGroups(const BlockLayout& layout, torch::Device device) {
  std::vector<Group> groups;
  const int blocks = int(layout.anchors.size());
  for (int first = 0; first < blocks; first += kGroup) {
    const int n = std::min(kGroup, blocks - first), context = layout.anchors[size_t(first + n - 1)];
    const Tensor anchors =
        torch::tensor(std::vector<int>(layout.anchors.begin() + first, layout.anchors.begin() + first + n));
    const Tensor before = torch::arange(context).unsqueeze(0).ge(anchors.unsqueeze(1));
    const Tensor block = torch::arange(n).repeat_interleave(layout.gamma);
    const Tensor others = block.unsqueeze(0).ne(block.unsqueeze(1));
    groups.push_back({first * layout.gamma, n * layout.gamma, context,
                      torch::cat({before.repeat_interleave(layout.gamma, 0), others}, 1).to(device)});
  }
  return groups;
}

// Keys or values of a group: the context it may see, then its own slots.
Tensor Keys(const Tensor& k, const Group& g, int context) {
  return torch::cat({k.narrow(1, 0, g.context), k.narrow(1, context + g.first, g.rows)}, 1);
}

void AddKeys(const Tensor& gradient, const Group& g, int context, Tensor* dk) {
  dk->narrow(1, 0, g.context).add_(gradient.narrow(1, 0, g.context));
  dk->narrow(1, context + g.first, g.rows).add_(gradient.narrow(1, g.context, g.rows));
}

// [n, H, hd] to [KV, H / KV, n, hd].
Tensor ByHead(const Tensor& q, int64_t kv_heads, torch::ScalarType precision) {
  return q.to(precision).view({q.size(0), kv_heads, -1, q.size(2)}).permute({1, 2, 0, 3}).contiguous();
}

// Queries of a group as [KV, H / KV * rows, hd].
Tensor Queries(const Tensor& q, const Group& g) {
  return q.narrow(2, g.first, g.rows).reshape({q.size(0), -1, q.size(3)});
}

Tensor Probabilities(const Tensor& queries, const Tensor& keys, const Group& g, double scale) {
  Tensor scores = queries.bmm(keys.transpose(1, 2)).to(torch::kFloat32).mul_(scale);
  scores.view({keys.size(0), -1, g.rows, keys.size(1)})
      .masked_fill_(g.hidden, -std::numeric_limits<float>::infinity());
  return scores.softmax(-1);
}

struct BlockAttentionFunction : Function<BlockAttentionFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const BlockLayout& layout, torch::ScalarType precision) {
    const Tensor queries = ByHead(q, k.size(1), precision);
    const Tensor keys = ByHead(k, k.size(1), precision).squeeze(1);
    const Tensor values = ByHead(v, k.size(1), precision).squeeze(1);
    const double scale = 1 / std::sqrt(double(q.size(2)));
    Tensor out = torch::empty(queries.sizes(), q.options());  // [KV, H / KV, slots, hd] fp32
    for (const Group& g : MakeGroups(layout, q.device())) {
      const Tensor p = Probabilities(Queries(queries, g), Keys(keys, g, layout.context), g, scale);
      const Tensor o = p.to(precision).bmm(Keys(values, g, layout.context));
      Tensor rows = out.narrow(2, g.first, g.rows);
      rows.copy_(o.view(rows.sizes()));
    }
    context->save_for_backward({queries, keys, values, out});
    context->saved_data["context"] = layout.context;
    context->saved_data["gamma"] = layout.gamma;
    context->saved_data["anchors"] = std::vector<int64_t>(layout.anchors.begin(), layout.anchors.end());
    return out.permute({2, 0, 1, 3}).reshape({q.size(0), -1});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const std::vector<int64_t> anchors = context->saved_data["anchors"].toIntVector();
    const BlockLayout layout{int(context->saved_data["context"].toInt()),
                             {anchors.begin(), anchors.end()},
                             int(context->saved_data["gamma"].toInt())};
    const double scale = 1 / std::sqrt(double(q.size(3)));
    const Tensor d_out =
        gradients[0].view({q.size(2), q.size(0), q.size(1), q.size(3)}).permute({1, 2, 0, 3}).contiguous();
    const Tensor dot = d_out.mul(saved[3]).sum(-1, true);  // [KV, H / KV, slots, 1]
    const auto wide = [](const Tensor& t) {
      return torch::zeros(t.sizes(), t.options().dtype(torch::kFloat32));
    };
    Tensor dq = wide(q), dk = wide(k), dv = wide(v);
    for (const Group& g : MakeGroups(layout, q.device())) {
      const Tensor queries = Queries(q, g), keys = Keys(k, g, layout.context);
      const Tensor p = Probabilities(queries, keys, g, scale);
      const Tensor d_rows = Queries(d_out, g).to(q.scalar_type());
      AddKeys(p.to(q.scalar_type()).transpose(1, 2).bmm(d_rows), g, layout.context, &dv);
      const Tensor dp = d_rows.bmm(Keys(v, g, layout.context).transpose(1, 2)).to(torch::kFloat32);
      const Tensor ds = dp.sub_(Queries(dot, g)).mul_(p).mul_(scale).to(q.scalar_type());
      AddKeys(ds.transpose(1, 2).bmm(queries), g, layout.context, &dk);
      Tensor rows = dq.narrow(2, g.first, g.rows);
      rows.copy_(ds.bmm(keys).view(rows.sizes()));
    }
    const Tensor dq_rows = dq.permute({2, 0, 1, 3}).reshape({q.size(2), -1, q.size(3)});
    return {dq_rows, dk.transpose(0, 1), dv.transpose(0, 1), {}, {}};
  }
};

}  // namespace

Tensor BlockAttention(const Tensor& q, const Tensor& k, const Tensor& v, const BlockLayout& layout,
                      torch::ScalarType precision) {
  return BlockAttentionFunction::apply(q, k, v, layout, precision);
}

}  // namespace dspark

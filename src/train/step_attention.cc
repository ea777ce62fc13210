#include "train/step_attention.h"

#include <torch/autograd.h>

#include <cmath>
#include <limits>

namespace dspark {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kGroup = 64;  // rows that share one product

// Shapes by head: queries [KV, H / KV, n, hd]; keys and values of step 0 [KV, c, hd]; own ones [KV, 1, n, k,
// hd].
struct Heads {
  Tensor q, keys, values, own_keys, own_values;
  double scale;
};

// Rows `first` … of the queries and what they see of step 0: its first `context` rows.
struct Group {
  int64_t first, rows, context;
  Tensor hidden;  // [rows, context]: true where a row must not look
};

std::vector<Group> MakeGroups(const std::vector<int64_t>& rows, torch::Device device) {
  std::vector<Group> groups;
  const int64_t n = int64_t(rows.size());
  for (int64_t first = 0; first < n; first += kGroup) {
    const int64_t count = std::min(kGroup, n - first), context = rows[size_t(first + count - 1)] + 1;
    const Tensor at =
        torch::tensor(std::vector<int64_t>(rows.begin() + first, rows.begin() + first + count)).unsqueeze(1);
    groups.push_back({first, count, context, torch::arange(context).unsqueeze(0).gt(at).to(device)});
  }
  return groups;
}

Tensor QueriesByHead(const Tensor& q, int64_t kv_heads) {
  return q.view({q.size(0), kv_heads, -1, q.size(2)}).permute({1, 2, 0, 3}).contiguous();
}

Tensor OwnByHead(const Tensor& own) { return own.permute({2, 0, 1, 3}).unsqueeze(1).contiguous(); }

// A group's rows as [KV, H / KV * rows, …], for products with step 0.
Tensor Joined(const Tensor& by_head, const Group& g) {
  return by_head.narrow(2, g.first, g.rows).reshape({by_head.size(0), -1, by_head.size(3)});
}

// Probabilities [KV, H / KV, rows, context + k].
Tensor Probabilities(const Heads& h, const Group& g) {
  Tensor scores = Joined(h.q, g).to(h.keys.scalar_type()).bmm(h.keys.narrow(1, 0, g.context).transpose(1, 2));
  scores = scores.to(torch::kFloat32).view({h.q.size(0), -1, g.rows, g.context});
  scores.masked_fill_(g.hidden, -std::numeric_limits<float>::infinity());
  if (h.own_keys.size(3) > 0) {
    const Tensor own = h.q.narrow(2, g.first, g.rows).unsqueeze(3) * h.own_keys.narrow(2, g.first, g.rows);
    scores = torch::cat({scores, own.sum(-1)}, -1);
  }
  return scores.mul_(h.scale).softmax(-1);
}

// Gradients of a group, added to those of all; d_out and out: [KV, H / KV, n, hd].
void AddGradients(const Heads& h, const Group& g, const Tensor& d_out, const Tensor& out, Heads* d) {
  const auto rows_of = [&](const Tensor& t) { return t.narrow(2, g.first, g.rows); };
  const torch::ScalarType precision = h.keys.scalar_type();
  const int64_t steps = h.own_keys.size(3), kv = h.q.size(0);
  const Tensor p = Probabilities(h, g);
  const Tensor d_rows = Joined(d_out, g).to(precision), dot = rows_of(d_out.mul(out).sum(-1, true));
  const auto joined = [&](const Tensor& t) {
    return t.narrow(3, 0, g.context).to(precision).reshape({kv, -1, g.context});
  };
  d->values.narrow(1, 0, g.context).add_(joined(p).transpose(1, 2).bmm(d_rows));
  Tensor dp = d_rows.bmm(h.values.narrow(1, 0, g.context).transpose(1, 2)).to(torch::kFloat32);
  dp = dp.view({kv, -1, g.rows, g.context});
  if (steps > 0) dp = torch::cat({dp, (rows_of(d_out).unsqueeze(3) * rows_of(h.own_values)).sum(-1)}, -1);
  const Tensor ds = dp.sub_(dot).mul_(p).mul_(h.scale);
  d->keys.narrow(1, 0, g.context).add_(joined(ds).transpose(1, 2).bmm(Joined(h.q, g).to(precision)));
  Tensor dq = rows_of(d->q);
  dq.copy_(joined(ds).bmm(h.keys.narrow(1, 0, g.context)).view(dq.sizes()));
  if (steps == 0) return;
  const Tensor ds_own = ds.narrow(3, g.context, steps).unsqueeze(-1);
  dq.add_((ds_own * rows_of(h.own_keys)).sum(3));
  rows_of(d->own_keys).copy_((ds_own * rows_of(h.q).unsqueeze(3)).sum(1, true));
  rows_of(d->own_values)
      .copy_((p.narrow(3, g.context, steps).unsqueeze(-1) * rows_of(d_out).unsqueeze(3)).sum(1, true));
}

struct StepAttentionFunction : Function<StepAttentionFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& keys, const Tensor& values,
                        const Tensor& own_keys, const Tensor& own_values, const std::vector<int64_t>& rows,
                        torch::ScalarType precision) {
    const auto by_head = [&](const Tensor& t) { return t.to(precision).transpose(0, 1).contiguous(); };
    const Heads h{QueriesByHead(q, keys.size(1)),
                  by_head(keys),
                  by_head(values),
                  OwnByHead(own_keys),
                  OwnByHead(own_values),
                  1 / std::sqrt(double(q.size(2)))};
    const int64_t steps = own_keys.size(1);
    Tensor out = torch::empty_like(h.q);
    for (const Group& g : MakeGroups(rows, q.device())) {
      const Tensor p = Probabilities(h, g);
      const Tensor joined = p.narrow(3, 0, g.context).to(precision).reshape({h.q.size(0), -1, g.context});
      Tensor o = out.narrow(2, g.first, g.rows);
      o.copy_(joined.bmm(h.values.narrow(1, 0, g.context)).view(o.sizes()));
      if (steps == 0) continue;
      const Tensor own = p.narrow(3, g.context, steps).unsqueeze(-1);
      o.add_((own * h.own_values.narrow(2, g.first, g.rows)).sum(3));
    }
    context->save_for_backward({h.q, h.keys, h.values, h.own_keys, h.own_values, out});
    context->saved_data["rows"] = rows;
    return out.permute({2, 0, 1, 3}).reshape({q.size(0), -1});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &out = saved[5];
    const Heads h{q, saved[1], saved[2], saved[3], saved[4], 1 / std::sqrt(double(q.size(3)))};
    const Tensor d_out =
        gradients[0].view({q.size(2), q.size(0), q.size(1), q.size(3)}).permute({1, 2, 0, 3}).contiguous();
    const auto zeros = [](const Tensor& t) {
      return torch::zeros(t.sizes(), t.options().dtype(torch::kFloat32));
    };
    Heads d{zeros(q), zeros(h.keys), zeros(h.values), zeros(h.own_keys), zeros(h.own_values), h.scale};
    for (const Group& g : MakeGroups(context->saved_data["rows"].toIntVector(), q.device()))
      AddGradients(h, g, d_out, out, &d);
    const auto own = [](const Tensor& t) { return t.squeeze(1).permute({1, 2, 0, 3}); };
    return {d.q.permute({2, 0, 1, 3}).reshape({q.size(2), -1, q.size(3)}),
            d.keys.transpose(0, 1),
            d.values.transpose(0, 1),
            own(d.own_keys),
            own(d.own_values),
            {},
            {}};
  }
};

}  // namespace

Tensor StepAttention(const Tensor& q, const Tensor& keys, const Tensor& values, const Tensor& own_keys,
                     const Tensor& own_values, const std::vector<int64_t>& rows,
                     torch::ScalarType precision) {
  const Tensor none = torch::empty({q.size(0), 0, keys.size(1), q.size(2)}, q.options());
  return StepAttentionFunction::apply(q, keys, values, own_keys.defined() ? own_keys : none,
                                      own_values.defined() ? own_values : none, rows, precision);
}

}  // namespace dspark

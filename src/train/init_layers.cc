#include "train/init_layers.h"

#include "load/drafter_tensors.h"

namespace dspark {
namespace {

// Rows of heads stored for rope's pairs (2i, 2i + 1), in the order of pairs (i, i + hd / 2).
torch::Tensor Deinterleaved(const torch::Tensor& rows, int head_dim) {
  return rows.view({-1, head_dim / 2, 2, rows.size(1)}).transpose(1, 2).reshape(rows.sizes());
}

}  // namespace

Status InitLayers(const std::vector<int>& from, const ModelFiles& target, Parameters* parameters) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters->all()) {
    const std::string name = DrafterTensorName(p.name);
    if (from.empty() || !name.starts_with("blk.")) continue;
    const size_t dot = name.find('.', 4);
    const int layer = std::stoi(name.substr(4, dot - 4));
    const TensorView* view =
        target.weights->Find(fmt::format("blk.{}{}", from[size_t(layer)], name.substr(dot)));
    if (!view) continue;
    torch::Tensor values = TensorFrom(*view);
    if (values.sizes() != p.master.sizes()) {
      return MakeError("{}: tensor {} has another shape than the drafter's layer; leave init_layers empty",
                       target.weights->path(), view->name);
    }
    const bool roped = name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
    if (roped && target.config.rope_interleaved) values = Deinterleaved(values, target.config.head_dim);
    p.master.copy_(values);
  }
  parameters->RefreshLow();
  return {};
}

}  // namespace dspark

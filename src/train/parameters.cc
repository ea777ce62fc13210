#include "train/parameters.h"

#include <ATen/CPUGeneratorImpl.h>

#include "load/drafter_tensors.h"

namespace dspark {
namespace {

bool IsFrozen(std::string_view name) { return name == "token_embd.weight" || name == "output.weight"; }

torch::Tensor Initial(const std::string& name, const std::vector<int64_t>& shape, at::Generator random) {
  if (shape.size() == 2) return torch::empty(shape).normal_(0, 0.02, random);
  return name.ends_with(".bias") ? torch::zeros(shape) : torch::ones(shape);
}

// Ids in the order of the head's rows: those that draft, then the others.
std::vector<int64_t> HeadOrder(const DrafterConfig& config) {
  std::vector<int64_t> order(config.draft_to_target.begin(), config.draft_to_target.end());
  for (int64_t id = 0, next = 0; id < config.target_vocab; ++id) {
    if (next < int64_t(config.draft_to_target.size()) && order[size_t(next)] == id) {
      ++next;
    } else {
      order.push_back(id);
    }
  }
  return order;
}

}  // namespace

Parameters::Parameters(const DrafterConfig& config, torch::ScalarType precision, uint64_t seed,
                       const torch::Tensor& head) {
  const at::NoGradGuard no_grad;
  const at::Generator random = at::detail::createCPUGenerator(seed);
  const int64_t d = config.backbone.d_model, r = config.markov_rank;
  draft_head_ = torch::empty({config.backbone.vocab, d + r}, torch::dtype(precision));
  draft_head_.narrow(1, 0, d).copy_(head.narrow(0, 0, config.backbone.vocab));
  for (const auto& [name, shape] : DrafterShapes(config)) {
    if (IsFrozen(name)) continue;
    Parameter p{DeepSpecTensorName(name), Initial(name, shape, random), {}};
    if (name == "markov_w2.weight") {
      p.low = draft_head_.narrow(1, d, r);
    } else if (shape.size() == 2 && name != "markov_w1.weight") {
      p.low = precision == torch::kFloat32 ? p.master : p.master.to(precision);
    }
    all_.push_back(std::move(p));
  }
  RefreshLow();
}

Status Parameters::Load(const TensorSource& source) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : all_) {
    const TensorView* view = source.Find(DrafterTensorName(p.name));
    if (!view || p.master.sizes() != at::IntArrayRef(view->shape)) {
      return MakeError(
          "{}: tensor {} is missing or has another shape; start from a drafter of the same sizes",
          source.path(), p.name);
    }
    p.master.copy_(TensorFrom(*view));
  }
  RefreshLow();
  return {};
}

void Parameters::RefreshLow() {
  const at::NoGradGuard no_grad;
  for (Parameter& p : all_) {
    if (p.low.defined() && !p.low.is_same(p.master)) p.low.copy_(p.master);
  }
}

Weights Parameters::MakeWeights() const {
  Weights weights;
  for (const Parameter& p : all_) weights[p.name] = {p.master.detach().requires_grad_(), p.low};
  return weights;
}

torch::Tensor TensorFrom(const TensorView& view) {
  torch::Tensor values = torch::empty(view.shape, torch::kFloat32);
  Dequantize(view.type, view.bytes.data(), values.numel(), values.data_ptr<float>());
  return values;
}

Result<FrozenWeights> LoadFrozen(const TensorSource& target, const DrafterConfig& config,
                                 torch::ScalarType precision) {
  const TensorView* embedding = target.Find("token_embd.weight");
  const TensorView* head = target.Find("output.weight");
  if (!head) head = embedding;
  const std::vector<int64_t> shape = {config.target_vocab, config.target_width};
  for (const TensorView* view : {embedding, head}) {
    if (!view || view->shape != shape) {
      return MakeError("{}: has no embedding or head of {} x {}; give the model the drafter is for",
                       target.path(), shape[0], shape[1]);
    }
  }
  FrozenWeights frozen{TensorFrom(*embedding).to(precision), TensorFrom(*head).to(precision), {}};
  frozen.head_row = torch::arange(config.target_vocab, torch::kInt32);
  if (config.draft_to_target.empty()) return frozen;
  const torch::Tensor order = torch::tensor(HeadOrder(config));
  frozen.head = frozen.head.index_select(0, order);
  frozen.head_row.index_copy_(0, order, torch::arange(config.target_vocab, torch::kInt32));
  return frozen;
}

}  // namespace dspark

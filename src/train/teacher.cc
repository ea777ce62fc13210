#include "train/teacher.h"

#include "train/products.h"

namespace dspark {
namespace {

using torch::Tensor;

constexpr float kNothing = -1e30f;  // a logit whose e^x is 0

Tensor LogitsOfLists(const SampleTeacher& teacher, const Tensor& at, int64_t drafted,
                     torch::ScalarType precision) {
  const Tensor rows = teacher.top_rows.index_select(0, at), log_p = teacher.top_log_p.index_select(0, at);
  const Tensor known = rows.lt(drafted);
  const Tensor logits = torch::full({at.size(0), drafted + 1}, kNothing, log_p.options());
  logits.scatter_(1, rows.clamp_max(drafted), log_p);
  const Tensor rest = 1 - log_p.exp().mul(known).sum(1);
  logits.select(1, drafted).copy_(rest.log().nan_to_num(kNothing, kNothing, kNothing));
  return logits.to(precision);
}

}  // namespace

SampleTeacher TeacherOf(const FrozenWeights& frozen, const TrainSample& sample) {
  const int64_t length = int64_t(sample.ids.size());
  const torch::Device device = frozen.head.device();
  if (sample.top.ids.empty()) return {frozen.head, CopyOfRows(sample.last_hidden, length, device), {}, {}};
  const Tensor ids = torch::tensor(sample.top.ids, torch::kInt64).to(device);
  return {.head = frozen.head,
          .hidden = {},
          .top_rows = frozen.head_row.index_select(0, ids).to(torch::kInt64).view({length, -1}),
          .top_log_p = CopyOfRows(sample.top.log_p, length, device)};
}

Tensor LogitsOf(const SampleTeacher& teacher, const std::vector<int64_t>& rows, int64_t drafted,
                torch::ScalarType precision) {
  const Tensor at = torch::tensor(rows).to(teacher.head.device());
  if (teacher.top_rows.defined()) return LogitsOfLists(teacher, at, drafted, precision);
  return teacher.hidden.index_select(0, at).to(precision).mm(teacher.head.t());
}

Tensor LikeliestOf(const SampleTeacher& teacher, const std::vector<int64_t>& rows, const Tensor& logits) {
  if (!teacher.top_rows.defined()) return logits.argmax(1);
  return teacher.top_rows.select(1, 0).index_select(0, torch::tensor(rows).to(teacher.head.device()));
}

}  // namespace dspark

// What the target says of a sample's tokens, in the two forms that a source may hold.
#pragma once

#include "data/train_sample.h"
#include "train/parameters.h"

namespace dspark {

// Either the last hidden states, one product away from the whole distribution, or of each row the k likeliest
// tokens. Of the latter everything that is not both listed and drafted counts as one more token, which no
// drafter drafts: it makes the probabilities add up to 1, is all distance in l1, and has no part in a
// cross-entropy. Σ min(p, q) over listed tokens is thus an acceptance that the drafter has at least; it has
// at most what the list leaves out more. With k = V this is the whole distribution.
struct SampleTeacher {
  torch::Tensor head;       // [V, d]: FrozenWeights::head
  torch::Tensor hidden;     // [T, d] fp32; undefined where there are lists
  torch::Tensor top_rows;   // [T, k] int64: rows of `head`, the likeliest first
  torch::Tensor top_log_p;  // [T, k] fp32
};
// The sample holds one of the two.
SampleTeacher TeacherOf(const FrozenWeights& frozen, const TrainSample& sample);

// [n, Vd or more]: logits of the rows `rows` of a sample, in `precision`; those of a draft vocabulary of the
// first Vd rows of `head` come first.
torch::Tensor LogitsOf(const SampleTeacher& teacher, const std::vector<int64_t>& rows, int64_t drafted,
                       torch::ScalarType precision);
// [n] int64: the row of `head` that the target is most for, of the same rows. `logits`: LogitsOf them.
torch::Tensor LikeliestOf(const SampleTeacher& teacher, const std::vector<int64_t>& rows,
                          const torch::Tensor& logits);

}  // namespace dspark

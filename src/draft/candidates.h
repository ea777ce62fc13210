// The few tokens among which a sampled draft is drawn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/isa.h"
#include "kernels/ops.h"

namespace dspark {

// The ids.size() likeliest of `logits` [Vd], descending, with their logits in `values`; tokens of `raised`
// that are not among them take the place of the least likely. `draft_to_target`: [Vd] the target's id of
// every draft id, empty where they are the same; `raised` are the target's, `ids` the draft's.
inline void FindSampledCandidates(Isa isa, std::span<const float> logits, std::span<const int32_t> raised,
                                  std::span<const int32_t> draft_to_target, std::span<int32_t> ids,
                                  std::span<float> values) {
  TopK(isa, logits, int(ids.size()), ids.data(), values.data());
  const auto target_id = [&](int32_t v) { return draft_to_target.empty() ? v : draft_to_target[size_t(v)]; };
  const auto is_raised = [&](int32_t v) { return std::ranges::find(raised, target_id(v)) != raised.end(); };
  size_t place = ids.size();
  for (const int32_t token : raised) {
    const auto at = std::ranges::find(draft_to_target, token);
    if (!draft_to_target.empty() && at == draft_to_target.end()) continue;
    const auto id = draft_to_target.empty() ? token : int32_t(at - draft_to_target.begin());
    if (std::ranges::find(ids, id) != ids.end()) continue;
    while (place > 0 && is_raised(ids[place - 1])) --place;
    if (place == 0) return;
    ids[--place] = id;
    values[place] = logits[size_t(id)];
  }
}

}  // namespace dspark

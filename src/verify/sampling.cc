#include "verify/sampling.h"

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/check.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

// The last token that survives in the order "more probable first, then lower id".
struct Cut {
  float prob = 0;
  int32_t id = INT_MAX;
};

Status CheckRange(const char* name, float value, float low, float high) {
  if (value >= low && value <= high) return {};  // false for NaN
  return MakeError("{} is {}; it must lie between {} and {}", name, value, low, high);
}

void ApplyPenalties(std::span<float> logits, const SamplingParams& params, const TokenHistory& history) {
  for (int32_t token : history.tokens()) {
    logits[size_t(token)] = Penalised(logits[size_t(token)], token, params, history);
  }
}

// Ascending ids below the vocabulary, one per token, can only be 0, 1, 2 …
void NumberIds(size_t vocab, std::vector<int32_t>* ids) {
  if (ids->size() == vocab) return;
  ids->resize(vocab);
  std::iota(ids->begin(), ids->end(), 0);
}

// The shortest prefix of `probs` (descending) that top-p and min-p keep; all of them where they are NaN.
size_t KeptPrefix(std::span<const float> probs, const SamplingParams& params) {
  size_t kept = 0;
  double mass = 0;
  while (kept < probs.size() &&
         (kept == 0 || !(mass >= params.top_p || probs[kept] < params.min_p * probs[0]))) {
    mass += probs[kept++];
  }
  return kept;
}

void TruncateTopK(Isa isa, std::span<const float> logits, const SamplingParams& params, Distribution* out) {
  const float inverse_temperature = 1 / params.temperature;
  out->ids.resize(size_t(params.top_k));
  out->probs.resize(size_t(params.top_k));
  TopK(isa, logits, params.top_k, out->ids.data(), out->probs.data());
  if (params.top_p < 1 || params.min_p > 0) {
    Softmax(isa, out->probs, inverse_temperature, out->probs.data());
    const size_t kept = KeptPrefix(out->probs, params);
    out->ids.resize(kept);
    out->probs.resize(kept);
  }
  std::sort(out->ids.begin(), out->ids.end());
  for (size_t i = 0; i < out->ids.size(); ++i) out->probs[i] = logits[size_t(out->ids[i])];
  Softmax(isa, out->probs, inverse_temperature, out->probs.data());
}

// Calls visit(i) for every probability ≥ `least`, in order. Most of a vocabulary is below: blocks without one
// are skipped by a test that the compiler vectorises.
template <class Visit>
void ForEachAtLeast(std::span<const float> probs, float least, Visit visit) {
  constexpr size_t kBlock = 16;
  const float* p = probs.data();
  const size_t n = probs.size();
  size_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int any = 0;
    for (size_t j = i; j < i + kBlock; ++j) any |= p[j] >= least;
    if (!any) continue;
    for (size_t j = i; j < i + kBlock; ++j) {
      if (p[j] >= least) visit(j);
    }
  }
  for (; i < n; ++i) {
    if (p[i] >= least) visit(i);
  }
}

// The last token of the smallest set of most probable tokens whose mass reaches top_p: quickselect by mass.
// `candidates` holds a superset of that set and is reordered.
Cut SelectNucleus(std::span<const float> probs, double top_p, std::span<int32_t> candidates) {
  const auto before = [&](int32_t a, int32_t b) {
    const float pa = probs[size_t(a)], pb = probs[size_t(b)];
    return pa > pb || (pa == pb && a < b);
  };
  Cut cut;          // survives every narrowing: if rounding hides the boundary, one token too many is kept
  double mass = 0;  // of the tokens before `first`, all of which are kept
  auto first = candidates.begin(), last = candidates.end();
  while (first != last) {
    int32_t three[] = {*first, first[(last - first) / 2], last[-1]};
    std::sort(three, three + 3, before);
    const int32_t pivot = three[1];
    const auto split = std::partition(first, last, [&](int32_t id) { return before(id, pivot); });
    std::iter_swap(split, std::find(split, last, pivot));
    double upper = 0;
    for (auto i = first; i != split; ++i) upper += probs[size_t(*i)];
    const Cut at_pivot{probs[size_t(pivot)], pivot};
    if (mass + upper >= top_p) {
      cut = at_pivot;
      last = split;
    } else {
      mass += upper + at_pivot.prob;
      if (mass >= top_p) return at_pivot;
      first = split + 1;
    }
  }
  return cut;
}

// The bits of a positive float in the order of its value: eight bins to a factor of two.
constexpr uint32_t kBinShift = 20;
uint32_t BinOf(float p) { return std::bit_cast<uint32_t>(p) >> kBinShift; }

// Top-p over the whole vocabulary without sorting it: the mass of each bin of probabilities, then a selection
// inside the bin where the sum from above reaches top_p.
Cut FindNucleus(float top_p, Distribution* out) {
  const std::span<const float> probs = out->probs;
  const double goal = std::max(double(top_p), std::numeric_limits<double>::min());  // one token for top_p = 0
  constexpr uint32_t kBins = 1024;  // a probability is below 2, whose bin is 1024
  double masses[2][kBins] = {};     // two, so that neighbours do not wait for each other
  for (size_t i = 0; i < probs.size(); ++i) masses[i % 2][BinOf(probs[i])] += double(probs[i]);
  double above = 0;
  uint32_t bin = kBins;
  while (bin > 0) {
    --bin;
    const double mass = masses[0][bin] + masses[1][bin];
    if (above + mass >= goal) break;
    above += mass;
  }
  std::vector<int32_t>& candidates = out->ids;
  candidates.clear();
  ForEachAtLeast(probs, std::bit_cast<float>(bin << kBinShift), [&](size_t i) {
    if (BinOf(probs[i]) == bin) candidates.push_back(int32_t(i));
  });
  return SelectNucleus(probs, goal - above, candidates);
}

// Eight partial sums: exact enough, and eight times as fast as one chain of additions.
double Sum(std::span<const float> values) {
  double partial[8] = {};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (size_t j = 0; j < 8; ++j) partial[j] += values[i + j];
  }
  for (size_t j = 0; i < values.size(); ++i, ++j) partial[j] += values[i];
  return std::accumulate(partial, partial + 8, 0.0);
}

// Keeps what stands above both the cut and the floor, in id order, and normalises it.
void Keep(Cut cut, float floor, Distribution* out) {
  std::vector<int32_t>& ids = out->ids;
  std::vector<float>& probs = out->probs;
  ids.clear();
  ForEachAtLeast(probs, std::max(cut.prob, floor), [&](size_t i) {
    const float p = probs[i];
    if (p == cut.prob && int32_t(i) > cut.id) return;
    probs[ids.size()] = p;
    ids.push_back(int32_t(i));
  });
  probs.resize(ids.size());
  const float scale = float(1 / Sum(probs));
  for (float& p : probs) p *= scale;
}

void MakeOneHot(int32_t token, Distribution* out) {
  out->ids.assign(1, token);
  out->probs.assign(1, 1.0f);
}

void ServeDense(Isa isa, std::span<const float> logits, const SamplingParams& params, Distribution* out) {
  out->probs.resize(logits.size());
  Softmax(isa, logits, 1 / params.temperature, out->probs.data());
  const bool truncates = params.top_p < 1 || params.min_p > 0;
  if (!truncates || std::isnan(out->probs.front())) return NumberIds(logits.size(), &out->ids);
  const float largest = out->probs[size_t(ArgMax(isa, out->probs))];
  const Cut cut = params.top_p < 1 ? FindNucleus(params.top_p, out) : Cut{};
  Keep(cut, std::max(params.min_p * largest, std::numeric_limits<float>::min()), out);
}

}  // namespace

Status Validate(const SamplingParams& params, int vocab) {
  DSPARK_RETURN_IF_ERROR(CheckRange("temperature", params.temperature, 0, 100));
  if (params.top_k < 0) return MakeError("top_k is {}; it must be 0 (off) or more", params.top_k);
  DSPARK_RETURN_IF_ERROR(CheckRange("top_p", params.top_p, 0, 1));
  DSPARK_RETURN_IF_ERROR(CheckRange("min_p", params.min_p, 0, 1));
  DSPARK_RETURN_IF_ERROR(CheckRange("repetition_penalty", params.repetition_penalty, 0.01f, 100));
  DSPARK_RETURN_IF_ERROR(CheckRange("presence_penalty", params.presence_penalty, -2, 2));
  DSPARK_RETURN_IF_ERROR(CheckRange("frequency_penalty", params.frequency_penalty, -2, 2));
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab) {
      return MakeError("logit_bias names token {}; tokens lie between 0 and {}", token, vocab - 1);
    }
    DSPARK_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100, 100));
  }
  return {};
}

float Penalised(float logit, int32_t token, const SamplingParams& params, const TokenHistory& history) {
  if (history.Seen(token) == 0) return logit;
  logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  const int generated = history.Generated(token);
  logit -= params.frequency_penalty * float(generated);
  return generated > 0 ? logit - params.presence_penalty : logit;
}

float Distribution::ProbabilityOf(int32_t token) const {
  const size_t dense = size_t(token);
  if (dense < ids.size() && ids[dense] == token) return probs[dense];
  const auto at = std::lower_bound(ids.begin(), ids.end(), token);
  return at != ids.end() && *at == token ? probs[size_t(at - ids.begin())] : 0;
}

int32_t Distribution::Sample(double u) const {
  DSPARK_CHECK(!ids.empty());
  constexpr size_t kBlock = 64;
  double below = 0;
  size_t end = 0;
  while (end < ids.size()) {
    const size_t begin = end;
    end = std::min(begin + kBlock, ids.size());
    const double mass = Sum(std::span(probs).subspan(begin, end - begin));
    if (below + mass > u) {
      for (size_t i = begin; i < end; ++i) {
        below += probs[i];
        if (below > u) return ids[i];
      }
      break;
    }
    below += mass;
  }
  // Rounding left the sum at or below u: the last token of those summed that is possible at all.
  while (end > 1 && !(probs[end - 1] > 0)) --end;
  return ids[end - 1];
}

bool ServedDistribution(Isa isa, std::span<float> logits, const SamplingParams& params,
                        const TokenHistory* history, Distribution* out) {
  for (const auto& [token, bias] : params.logit_bias) logits[size_t(token)] += bias;
  if (params.NeedsHistory()) {
    DSPARK_CHECK(history != nullptr);
    ApplyPenalties(logits, params, *history);
  }
  if (params.Greedy()) {
    const int best = ArgMax(isa, logits);
    MakeOneHot(best, out);
    return std::isfinite(logits[size_t(best)]);
  }
  if (params.top_k > 0 && size_t(params.top_k) < logits.size()) {
    TruncateTopK(isa, logits, params, out);
  } else {
    ServeDense(isa, logits, params, out);
  }
  if (!std::isnan(out->probs.front())) return true;  // NaN throughout or nowhere
  MakeOneHot(0, out);
  return false;
}

}  // namespace dspark

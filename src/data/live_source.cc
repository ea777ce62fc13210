#include "data/live_source.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/check.h"
#include "data/compact_sample.h"
#include "kernels/ops.h"

namespace dspark {
namespace {

constexpr float kLeastLogP = -1e4f;  // of a probability of 0, that fits into fp16

bool AllFinite(const float* values, size_t n) {
  float sum = 0;  // becomes NaN with the first value that is not finite, and stays it
  for (size_t i = 0; i < n; ++i) sum += values[i] * 0;
  return sum == 0;
}

Error NotFinite(std::string_view what) {
  return MakeError("the target gives {} that are not finite; its weights are damaged", what);
}

// Of `rows` rows of a sample from `begin` on, those behind which a loss may ask for the teacher begin here.
int FirstTeacherRow(const TrainTokens& tokens, int begin, int rows) {
  int first = 0;
  while (first < rows && !IsTeacherRow(tokens.loss_mask, begin + first)) ++first;
  return first;
}

}  // namespace

// The samples that have K/V, the oldest first.
struct Teacher::Running {
  std::deque<KvTable> kv;
  size_t first = 0;  // sample of kv.front()
  int done = 0;      // its rows that were run; all others have none
};

Teacher::Teacher(Target& target, BlockPool& blocks, std::vector<int> tap_layers, int top)
    : target_(target), blocks_(blocks), tap_layers_(std::move(tap_layers)), asked_(tap_layers_), top_(top) {
  DSPARK_CHECK_LE(top, std::min(target.config().vocab, kMaxTeacherTop));
  if (top > 0) DSPARK_CHECK_LE(target.limits().max_rows, target.limits().max_logit_rows);
  const int final_norm = target.config().layers;
  if (asked_.empty() || asked_.back() != final_norm) asked_.push_back(final_norm);
  DSPARK_CHECK_LE(int(asked_.size()), target.limits().max_taps);
}

int Teacher::BlocksFor(const Target& target, int max_length) {
  // One sample that is half done, one that will be, and short ones between them, mostly a block or more each.
  const KvLayout layout = target.kv_layout();
  return 2 * layout.BlocksFor(max_length) + 2 * layout.BlocksFor(target.limits().max_rows);
}

Status Teacher::Check(const TrainTokens& tokens) const {
  const int length = int(tokens.ids.size());
  if (length == 0) return MakeError("has no tokens");
  if (length > target_.limits().max_context || blocks_.layout().BlocksFor(length) > blocks_.blocks())
    return MakeError("has {} tokens, more than the target runs with", length);
  const uint32_t vocab = uint32_t(config().vocab);
  if (std::ranges::any_of(tokens.ids, [&](int32_t id) { return uint32_t(id) >= vocab; }))
    return MakeError("has ids outside the vocabulary");
  return {};
}

// Fills a pass with the rest of the oldest sample and as many of those behind it as rows and blocks allow.
std::vector<Teacher::Part> Teacher::PlanPass(std::span<const TrainTokens* const> samples,
                                             Running* running) const {
  std::vector<Part> parts;
  int free_rows = target_.limits().max_rows;
  for (size_t i = running->first; i < samples.size() && free_rows > 0; ++i) {
    const int length = int(samples[i]->ids.size());
    if (i - running->first == running->kv.size()) {
      KvTable kv(blocks_);
      if (!kv.Reserve(length)) break;
      running->kv.push_back(std::move(kv));
    }
    const int begin = i == running->first ? running->done : 0;
    const int rows = std::min(length - begin, free_rows);
    parts.push_back({i, begin, rows, top_ > 0 ? FirstTeacherRow(*samples[i], begin, rows) : rows});
    free_rows -= rows;
  }
  DSPARK_CHECK(!parts.empty());  // a sample alone fits: Check
  return parts;
}

// A sample whose states are to come.
TrainSample Teacher::Begin(const TrainTokens& tokens) const {
  const size_t t = tokens.ids.size(), d = size_t(config().d_model);
  TrainSample sample{.ids = tokens.ids, .loss_mask = tokens.loss_mask, .taps = {}, .last_hidden = {}};
  sample.taps.reserve(t * tap_layers_.size() * d);
  sample.last_hidden.reserve(t * d);
  sample.top.ids.resize(t * size_t(top_));
  sample.top.log_p.resize(t * size_t(top_));
  return sample;
}

// logits: of the part's rows from logits_from on, `stride` apart.
Status Teacher::AddTop(const Part& part, const float* logits, size_t stride, TrainSample* sample) const {
  const size_t vocab = size_t(config().vocab), k = size_t(top_);
  for (int i = part.logits_from; i < part.rows; ++i, logits += stride) {
    if (!IsTeacherRow(sample->loss_mask, part.begin + i)) continue;
    const size_t at = size_t(part.begin + i) * k;
    const std::span<const float> row(logits, vocab);
    const float log_sum = LogSumExp(target_.isa(), row);
    if (!std::isfinite(log_sum)) return NotFinite("logits");
    TopK(target_.isa(), row, top_, &sample->top.ids[at], &sample->top.log_p[at]);
    for (float& x : std::span(sample->top.log_p).subspan(at, k))
      x = std::clamp(x - log_sum, kLeastLogP, 0.0f);
  }
  return {};
}

Result<std::vector<TrainSample>> Teacher::Run(std::span<const TrainTokens* const> samples) {
  const size_t d = size_t(config().d_model), width = tap_layers_.size() * d;
  std::vector<TrainSample> result;
  for (const TrainTokens* tokens : samples) result.push_back(Begin(*tokens));
  Running running;
  while (running.first < samples.size()) {
    const std::vector<Part> parts = PlanPass(samples, &running);
    std::vector<Segment> segments;
    segments.reserve(parts.size());
    for (const Part& part : parts) {
      segments.push_back({.tokens = std::span(samples[part.sample]->ids).subspan(part.begin, part.rows),
                          .position = part.begin,
                          .kv = &running.kv[part.sample - running.first],
                          .logits_from = part.logits_from});
    }
    const ForwardOutput output = target_.Forward(segments, asked_);
    const float *row = output.taps, *logits = output.logits;
    for (const Part& part : parts) {
      TrainSample& sample = result[part.sample];
      for (int i = 0; i < part.rows; ++i, row += output.taps_stride) {
        const float* last = row + (asked_.size() - 1) * d;
        if (!AllFinite(row, output.taps_stride)) return NotFinite("hidden states");
        sample.taps.insert(sample.taps.end(), row, row + width);
        sample.last_hidden.insert(sample.last_hidden.end(), last, last + d);
      }
      DSPARK_RETURN_IF_ERROR(AddTop(part, logits, output.logits_stride, &sample));
      logits += size_t(part.rows - part.logits_from) * output.logits_stride;
      running.done = part.begin + part.rows;
      if (running.done < int(samples[part.sample]->ids.size())) continue;  // only the last part
      running.kv.pop_front();
      ++running.first;
      running.done = 0;
    }
  }
  return result;
}

Result<std::unique_ptr<LiveSource>> LiveSource::Make(std::vector<TrainTokens> samples, Teacher teacher,
                                                     std::string target_name) {
  for (size_t i = 0; i < samples.size(); ++i) {
    if (const Status fits = teacher.Check(samples[i]); !fits)
      return MakeError("sample {} {}", i, fits.error().text);
  }
  SampleShape shape{.tap_layers = teacher.tap_layers(),
                    .d_model = teacher.config().d_model,
                    .vocab = teacher.config().vocab,
                    .target_name = std::move(target_name),
                    .teacher_top = teacher.top()};
  return std::unique_ptr<LiveSource>(
      new LiveSource(std::move(samples), std::move(teacher), std::move(shape)));
}

Result<std::vector<TrainSample>> LiveSource::Read(const std::vector<int64_t>& indices) {
  std::vector<const TrainTokens*> asked;
  asked.reserve(indices.size());
  for (const int64_t index : indices) {
    DSPARK_CHECK(index >= 0 && index < size());
    asked.push_back(&samples_[size_t(index)]);
  }
  DSPARK_ASSIGN_OR_RETURN(std::vector<TrainSample> result, teacher_.Run(asked));
  for (size_t i = 0; i < indices.size(); ++i) result[i].id = indices[i];
  return result;
}

Result<std::vector<TrainSample>> LiveSource::ReadTokens(const std::vector<int64_t>& indices) {
  std::vector<TrainSample> result;
  result.reserve(indices.size());
  for (const int64_t index : indices) {
    DSPARK_CHECK(index >= 0 && index < size());
    const TrainTokens& tokens = samples_[size_t(index)];
    result.push_back({index, tokens.ids, tokens.loss_mask, {}, {}});
  }
  return result;
}

}  // namespace dspark

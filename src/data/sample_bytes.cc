#include "data/sample_bytes.h"

#include <cstring>

#include "core/check.h"
#include "core/float16.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

template <class T>
void Append(const std::vector<T>& values, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

void AppendBf16(const std::vector<float>& values, std::string* bytes) {
  std::vector<uint16_t> narrow(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow[i] = FloatToBf16(values[i]);
  Append(narrow, bytes);
}

// An array of `size` values at `offset`, which need not be aligned.
template <class T>
Result<std::vector<T>> ArrayAt(std::span<const uint8_t> shard, uint64_t offset, size_t size) {
  if (offset > shard.size() || size > (shard.size() - offset) / sizeof(T))
    return MakeError("lies outside its shard");
  std::vector<T> values(size);
  std::memcpy(values.data(), shard.data() + offset, size * sizeof(T));
  return values;
}

std::vector<float> Widened(const std::vector<uint16_t>& narrow) {
  std::vector<float> values(narrow.size());
  for (size_t i = 0; i < narrow.size(); ++i) values[i] = Bf16ToFloat(narrow[i]);
  return values;
}

}  // namespace

DeepSpecRecord DeepSpecRecordOf(const StoredSample& stored, uint64_t sample_id, const SampleShape& shape) {
  const uint64_t t = stored.seq_len, width = shape.tap_layers.size() * uint64_t(shape.d_model);
  DeepSpecRecord record{.sample_id = sample_id,
                        .shard = stored.shard,
                        .seq_len = stored.seq_len,
                        .input_ids = stored.offset,
                        .attention_mask = stored.offset + 4 * t,
                        .loss_mask = stored.offset + 5 * t,
                        .target_hidden = stored.offset + 6 * t,
                        .target_last_hidden = stored.offset + 6 * t + 2 * t * width};
  return record;
}

std::string DeepSpecBytes(const TrainSample& sample) {
  const std::vector<uint8_t> attention_mask(sample.ids.size(), 1);
  std::string bytes;
  bytes.reserve(sample.ids.size() * 6 + (sample.taps.size() + sample.last_hidden.size()) * 2);
  Append(sample.ids, &bytes);
  Append(attention_mask, &bytes);
  Append(sample.loss_mask, &bytes);
  AppendBf16(sample.taps, &bytes);
  AppendBf16(sample.last_hidden, &bytes);
  return bytes;
}

Result<TrainSample> ParseDeepSpec(std::span<const uint8_t> shard, const DeepSpecRecord& record,
                                  const SampleShape& shape, SampleParts parts) {
  const size_t t = record.seq_len, d = size_t(shape.d_model), width = shape.tap_layers.size() * d;
  TrainSample sample;
  sample.id = int64_t(record.sample_id);
  DSPARK_ASSIGN_OR_RETURN(sample.ids, ArrayAt<int32_t>(shard, record.input_ids, t));
  DSPARK_ASSIGN_OR_RETURN(sample.loss_mask, ArrayAt<uint8_t>(shard, record.loss_mask, t));
  if (parts == SampleParts::kTokens) return sample;
  DSPARK_ASSIGN_OR_RETURN(const auto taps, ArrayAt<uint16_t>(shard, record.target_hidden, t * width));
  DSPARK_ASSIGN_OR_RETURN(const auto last, ArrayAt<uint16_t>(shard, record.target_last_hidden, t * d));
  sample.taps = Widened(taps);
  sample.last_hidden = Widened(last);
  return sample;
}

}  // namespace dspark

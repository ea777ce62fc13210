// How samples stand in the files of a target cache: records of the indices, and a sample's bytes in
// DeepSpec's form. The compact form's are in compact_sample.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/result.h"
#include "data/train_sample.h"

namespace dspark {

inline constexpr int kMaxCacheWidth = 1 << 16;

// Where a sample lies; the compact form's index, and every unfinished cache's, consists of these.
struct StoredSample {
  uint32_t shard = 0;
  uint32_t seq_len = 0;  // T
  uint64_t offset = 0;   // in the shard
  uint64_t bytes = 0;
};
static_assert(sizeof(StoredSample) == 24);

// data_pipeline.md §5.6
struct DeepSpecRecord {
  uint64_t sample_id;
  uint32_t shard, seq_len;
  uint64_t input_ids, attention_mask, loss_mask, target_hidden, target_last_hidden;  // offsets in the shard
};
static_assert(sizeof(DeepSpecRecord) == 56);

DeepSpecRecord DeepSpecRecordOf(const StoredSample& stored, uint64_t sample_id, const SampleShape& shape);

// input_ids int32[T], attention_mask u8[T] of ones, loss_mask u8[T], taps bf16[T, m * d], last hidden bf16[T,
// d].
std::string DeepSpecBytes(const TrainSample& sample);

// What is read of a sample: everything, or ids and loss mask.
enum class SampleParts { kAll, kTokens };

// The inverse, each array from its own place in the shard. Error: one lies outside.
Result<TrainSample> ParseDeepSpec(std::span<const uint8_t> shard, const DeepSpecRecord& record,
                                  const SampleShape& shape, SampleParts parts);

}  // namespace dspark

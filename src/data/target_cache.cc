#include "data/target_cache.h"

#include <algorithm>
#include <cmath>

#include "data/compact_sample.h"
#include "data/sample_bytes.h"
#include "load/json_file.h"
#include "load/model_config.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

template <class Record>
Record RecordAt(const MappedFile& index, int64_t i) {
  return LoadUnaligned<Record>(index.bytes().data() + size_t(i) * sizeof(Record));
}

// Where the bytes of a sample begin and end in its shard.
struct Extent {
  uint32_t shard, seq_len;
  uint64_t begin, end;
};

Extent ExtentOf(const DeepSpecRecord& record, const SampleShape& shape) {
  const uint64_t bytes = uint64_t(record.seq_len) * 2 * uint64_t(shape.d_model);
  return {record.shard, record.seq_len, record.input_ids, record.target_last_hidden + bytes};
}

// Of [T, width] the row with a value that is not finite, as no target gives any; -1: none.
int64_t BrokenRow(const std::vector<float>& rows, size_t width) {
  const auto broken = std::ranges::find_if_not(rows, [](float x) { return std::isfinite(x); });
  return broken == rows.end() ? -1 : (broken - rows.begin()) / int64_t(width);
}

Extent ExtentOf(const StoredSample& stored) {
  return {stored.shard, stored.seq_len, stored.offset, stored.offset + stored.bytes};
}

}  // namespace

Result<TargetCache> TargetCache::Open(const std::string& dir, int vocab) {
  if (FileExists(dir + "/_tmp/settings.json") && !FileExists(dir + "/manifest.json")) {
    return MakeError("{}: the cache is not finished; call `dspark prepare cache` again to go on with it",
                     dir);
  }
  DSPARK_ASSIGN_OR_RETURN(CacheManifest manifest, ReadManifest(dir + "/manifest.json"));
  if (manifest.shape.vocab == 0) manifest.shape.vocab = vocab;
  DSPARK_ASSIGN_OR_RETURN(MappedFile index, MappedFile::Open(dir + "/samples.idx"));
  std::vector<MappedFile> shards;
  for (int i = 0; i < manifest.shards; ++i) {
    DSPARK_ASSIGN_OR_RETURN(MappedFile shard, MappedFile::Open(dir + "/" + ShardName(i)));
    shards.push_back(std::move(shard));
  }
  TargetCache cache(std::move(manifest), std::move(index), std::move(shards));
  DSPARK_RETURN_IF_ERROR(cache.CheckIndex());
  return cache;
}

// That every sample lies in its shard, and the shards hold nothing else behind the last one.
Status TargetCache::CheckIndex() const {
  const bool compact = manifest_.form == CacheForm::kCompact;
  const size_t record_bytes = compact ? sizeof(StoredSample) : sizeof(DeepSpecRecord);
  if (index_.bytes().size() != size_t(size()) * record_bytes) {
    return MakeError("{}: {} bytes, but {} samples of {} bytes are expected; copy or make the cache again",
                     index_.path(), index_.bytes().size(), size(), record_bytes);
  }
  std::vector<uint64_t> ends(shards_.size());
  for (int64_t i = 0; i < size(); ++i) {
    const Extent extent = compact ? ExtentOf(RecordAt<StoredSample>(index_, i))
                                  : ExtentOf(RecordAt<DeepSpecRecord>(index_, i), shape());
    const bool numbered = compact || RecordAt<DeepSpecRecord>(index_, i).sample_id == uint64_t(i);
    const bool inside = extent.shard < shards_.size() && extent.begin < extent.end &&
                        extent.end <= shards_[extent.shard].bytes().size();
    if (!numbered || !inside || extent.seq_len == 0 || extent.seq_len > kMaxModelSize) {
      return MakeError("{}: the record of sample {} is wrong; copy or make the cache again", index_.path(),
                       i);
    }
    ends[extent.shard] = std::max(ends[extent.shard], extent.end);
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (shards_[i].bytes().size() != ends[i]) {
      return MakeError("{}: {} bytes, but the index ends at {}; copy or make the cache again",
                       shards_[i].path(), shards_[i].bytes().size(), ends[i]);
    }
  }
  return {};
}

Result<TrainSample> TargetCache::ReadOne(int64_t index, SampleParts parts) const {
  if (manifest_.form == CacheForm::kDeepSpec) {
    const auto record = RecordAt<DeepSpecRecord>(index_, index);
    return ParseDeepSpec(shards_[record.shard].bytes(), record, shape(), parts);
  }
  const auto stored = RecordAt<StoredSample>(index_, index);
  return ParseCompact(shards_[stored.shard].bytes().subspan(stored.offset, stored.bytes), int(stored.seq_len),
                      shape(), parts);
}

Result<std::vector<TrainSample>> TargetCache::Read(const std::vector<int64_t>& indices) {
  return ReadAll(indices, SampleParts::kAll);
}

Result<std::vector<TrainSample>> TargetCache::ReadTokens(const std::vector<int64_t>& indices) {
  return ReadAll(indices, SampleParts::kTokens);
}

Result<std::vector<TrainSample>> TargetCache::ReadAll(const std::vector<int64_t>& indices,
                                                      SampleParts parts) const {
  std::vector<TrainSample> samples;
  samples.reserve(indices.size());
  const uint32_t vocab = shape().vocab > 0 ? uint32_t(shape().vocab) : uint32_t(kMaxModelSize);
  for (const int64_t index : indices) {
    DSPARK_CHECK(index >= 0 && index < size());
    auto sample = ReadOne(index, parts);
    const auto wrong = [&](std::string_view what) {
      return MakeError("{}: sample {} {}; copy or make the cache again", index_.path(), index, what);
    };
    if (!sample) return wrong(sample.error().text);
    if (std::ranges::any_of(sample->ids, [&](int32_t id) { return uint32_t(id) >= vocab; }))
      return wrong("has ids outside the vocabulary");
    if (std::ranges::any_of(sample->loss_mask, [](uint8_t m) { return m > 1; }))
      return wrong("has a loss mask of other values than 0 and 1");
    const size_t d = size_t(shape().d_model);
    for (const int64_t row :
         {BrokenRow(sample->taps, shape().tap_layers.size() * d), BrokenRow(sample->last_hidden, d)})
      if (row >= 0) return wrong(fmt::format("has hidden states that are not finite in row {}", row));
    sample->id = index;
    samples.push_back(std::move(sample).value());
  }
  return samples;
}

}  // namespace dspark

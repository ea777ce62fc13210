// Writes a target cache, sample by sample; killed at any moment, a second call goes on behind the last whole
// sample.
//
// While it grows, a cache is its shards and, in `_tmp`, settings.json and a StoredSample for every sample
// that is wholly in its shard. Finish writes index, settings.json and manifest, in this order, and removes
// `_tmp`: a directory with a manifest is a whole cache.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.h"
#include "data/cache_manifest.h"
#include "data/sample_bytes.h"

namespace dspark {

inline constexpr int64_t kDefaultShardBytes = int64_t{64} << 30;

struct CacheSettings {
  CacheManifest manifest;  // its counts are the writer's
  int64_t max_shard_bytes = kDefaultShardBytes;
  std::string made_from;  // whatever else decides what is written; compared when a cache is there already
};

class CacheWriter {
 public:
  // Makes `dir`, or goes on with what is there, in the version it was begun in. Error: it holds anything
  // else, was begun with other settings, or another process writes to it.
  static Result<CacheWriter> Open(const std::string& dir, const CacheSettings& wanted);

  int64_t samples() const { return int64_t(stored_.size()); }

  // A sample that would take a shard over its size begins the next one. Error: nothing can be written; the
  // samples before stay.
  Status Append(const TrainSample& sample);
  // At least one sample. Nothing may be appended afterwards.
  Status Finish();

 private:
  // An open file; closed at the end.
  class File {
   public:
    static Result<File> Open(const std::string& path);
    File(File&& other) noexcept;
    File& operator=(File&& other) noexcept;
    ~File();
    Status Append(const void* bytes, size_t size);
    Status Truncate(uint64_t size);
    Status Sync();
    bool Lock();

   private:
    File(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
    Error Failed() const;
    std::string path_;
    int fd_ = -1;
  };

  CacheWriter(std::string dir, CacheSettings settings, File progress)
      : dir_(std::move(dir)), settings_(std::move(settings)), progress_(std::move(progress)) {}
  std::string ShardPath(uint32_t shard) const;
  Status Resume();
  Status OpenShard(uint32_t shard);
  std::string IndexBytes() const;

  std::string dir_;
  CacheSettings settings_;
  File progress_;
  std::vector<StoredSample> stored_;
  std::unique_ptr<File> shard_;  // the last one
  uint32_t shard_number_ = 0;
  uint64_t shard_bytes_ = 0;
};

// Whether `dir` holds a whole cache; what was left of its making is removed.
bool HoldsWholeCache(const std::string& dir);

// Whether the whole cache in `dir` was made with these settings, by the settings.json in it; its counts and
// its name aside. Error: what differs, or that a cache of another program does not say it.
Status CheckSameSettings(const std::string& dir, const CacheSettings& wanted);

// Removes a cache's own files, whole or not, and nothing else: a directory without a cache stays as it is.
void RemoveCache(const std::string& dir);

}  // namespace dspark

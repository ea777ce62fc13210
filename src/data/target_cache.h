// A target cache on disk: samples with the target's hidden states, computed once (docs/formats.md).
#pragma once

#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "data/cache_manifest.h"
#include "data/sample_bytes.h"

namespace dspark {

// Reads either form. Shards are mapped; a sample is read when it is asked for.
class TargetCache : public SampleSource {
 public:
  // `vocab`: of the model it is read for, where the files do not say it (DeepSpec's). Error: a file that is
  // missing, of another size than the index says, or holds something else than the manifest says; an
  // unfinished cache.
  static Result<TargetCache> Open(const std::string& dir, int vocab = 0);

  const SampleShape& shape() const override { return manifest_.shape; }
  const CacheManifest& manifest() const { return manifest_; }
  int64_t size() const override { return manifest_.samples; }
  Result<std::vector<TrainSample>> Read(const std::vector<int64_t>& indices) override;
  Result<std::vector<TrainSample>> ReadTokens(const std::vector<int64_t>& indices) override;

 private:
  TargetCache(CacheManifest manifest, MappedFile index, std::vector<MappedFile> shards)
      : manifest_(std::move(manifest)), index_(std::move(index)), shards_(std::move(shards)) {}
  Status CheckIndex() const;
  Result<TrainSample> ReadOne(int64_t index, SampleParts parts) const;
  Result<std::vector<TrainSample>> ReadAll(const std::vector<int64_t>& indices, SampleParts parts) const;

  CacheManifest manifest_;
  MappedFile index_;
  std::vector<MappedFile> shards_;
};

}  // namespace dspark

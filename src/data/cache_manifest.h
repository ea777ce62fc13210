// manifest.json of a target cache: what every sample in it has in common (docs/formats.md).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "data/train_sample.h"

namespace dspark {

enum class CacheForm {
  kDeepSpec,  // DeepSpec's version 2: bf16 throughout (data_pipeline.md §5.6 to 5.8)
  kCompact,   // our own: 8-bit taps, a teacher where it is needed, zstd
};

struct CacheManifest {
  CacheForm form = CacheForm::kDeepSpec;
  SampleShape shape;  // vocab is 0 where the file does not say it (DeepSpec's)
  int64_t samples = 0;
  int shards = 0;
  std::string chat_template;
  // How the samples were made; written, not read.
  std::vector<std::string> sources;
  int max_length = 0, min_loss_tokens = 0;
  std::string project_name, exp_name, git_sha;
};

// "shard-00000.bin" and so on.
std::string ShardName(int shard);

nlohmann::json ManifestJson(const CacheManifest& manifest);

// Error: the path with the key that is missing or wrong.
Result<CacheManifest> ReadManifest(const std::string& path);

}  // namespace dspark

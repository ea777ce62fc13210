// Any bytes as the files of a target cache: its manifest, its index with a shard, or a compact sample. What
// opens is read to the last sample.
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "core/check.h"
#include "data/compact_sample.h"
#include "data/sample_bytes.h"
#include "data/target_cache.h"

namespace dspark {
namespace {

constexpr int kSamples = 2;

// A folder of this process, in memory where the system has such a place.
std::string Folder() {
  std::error_code ignored;
  const bool shared = std::filesystem::is_directory("/dev/shm", ignored);
  std::string name = (shared ? "/dev/shm" : std::filesystem::temp_directory_path().string()) + "/fuzz-XXXXXX";
  DSPARK_CHECK(mkdtemp(name.data()) != nullptr);
  static const std::string kept = name;
  std::atexit([] { std::filesystem::remove_all(kept); });
  return name;
}

void Write(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string Manifest(CacheForm form) {
  CacheManifest m;
  m.form = form;
  m.shape = {.tap_layers = {1, 3}, .d_model = 8, .vocab = 300, .target_name = "t"};
  m.samples = kSamples;
  m.shards = 1;
  return ManifestJson(m).dump();
}

void ReadAll(const std::string& dir) {
  auto cache = TargetCache::Open(dir, 300);
  if (!cache) return;
  for (int64_t i = 0; i < std::min<int64_t>(cache->size(), 16); ++i) {
    (void)cache->Read({i}).ok();
    (void)cache->ReadTokens({i}).ok();
  }
}

// The bytes as what a zstd frame holds: a frame itself would hardly ever be met.
void ReadCompact(std::string_view bytes) {
  if (bytes.empty()) return;
  const int seq_len = uint8_t(bytes[0]);
  bytes.remove_prefix(1);
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 1));
  SampleShape shape{.tap_layers = {1, 3}, .d_model = 8, .vocab = 300, .target_name = "t"};
  const std::span bytes_of_frame(reinterpret_cast<const uint8_t*>(frame.data()), frame.size());
  for (const int top : {0, 3}) {
    shape.teacher_top = top;
    for (const SampleParts parts : {SampleParts::kTokens, SampleParts::kAll})
      (void)ParseCompact(bytes_of_frame, seq_len, shape, parts).ok();
  }
}

}  // namespace
}  // namespace dspark

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  static const std::string dir = Folder();
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int what = data[0] % 4;
  if (what == 3) {
    ReadCompact(bytes);
    return 0;
  }
  const CacheForm form = what == 2 ? CacheForm::kCompact : CacheForm::kDeepSpec;
  const size_t record = what == 2 ? sizeof(StoredSample) : sizeof(DeepSpecRecord);
  const size_t index = std::min(bytes.size(), kSamples * record);
  Write(dir + "/manifest.json", what == 0 ? std::string(bytes) : Manifest(form));
  Write(dir + "/samples.idx", what == 0 ? std::string(index, '\1') : std::string(bytes.substr(0, index)));
  Write(dir + "/" + ShardName(0), bytes.substr(index));
  ReadAll(dir);
  return 0;
}

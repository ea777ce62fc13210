#include "data/cache_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/atomic_file.h"
#include "core/mapped_file.h"
#include "data/compact_sample.h"
#include "load/json_file.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

nlohmann::json SettingsJson(const CacheSettings& settings) {
  nlohmann::json manifest = ManifestJson(settings.manifest);
  for (const char* of_the_result : {"num_samples", "num_shards", "shards", "exp_name"})
    manifest.erase(of_the_result);
  return {{"manifest", manifest},
          {"max_shard_bytes", settings.max_shard_bytes},
          {"made_from", settings.made_from}};
}

Status WriteWhole(const std::string& path, const std::string& text) {
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(text);
  return file.Commit();
}

// The settings.json at `path`. Error: it is another program's.
Result<nlohmann::json> ReadSettings(const std::string& path) {
  Result<nlohmann::json> settings = ReadJsonObject(path);
  if (settings && settings->contains("manifest") && (*settings)["manifest"].is_object() &&
      settings->contains("made_from")) {
    nlohmann::json& manifest = (*settings)["manifest"];
    // Made before there were lists.
    if (manifest.contains("format") && !manifest.contains("teacher_top_k")) manifest["teacher_top_k"] = 0;
    return settings;
  }
  return MakeError("{}: is not the settings of a cache begun here; move it, or give another --out", path);
}

// A file of this name that was half written when its process died (AtomicFile).
bool IsHalfOf(const std::string& name, const std::string& file) {
  return name.starts_with(file + ".") && name.ends_with(".tmp");
}

// Removes `_tmp` with what was written there, if it was begun here; other files stay, and `_tmp` with them.
// The settings go last: they tell a call that follows a kill whose it is.
void RemoveTmp(const std::string& dir) {
  const std::string tmp = dir + "/_tmp";
  std::error_code ignored;
  if (ReadSettings(tmp + "/settings.json").ok()) {
    std::vector<fs::path> halves;
    for (const auto& entry : fs::directory_iterator(tmp, ignored)) {
      const std::string name = entry.path().filename().string();
      for (const char* file : {"samples.idx", "manifest.json", "settings.json"})
        if (IsHalfOf(name, file)) halves.push_back(entry.path());
    }
    for (const fs::path& half : halves) fs::remove(half, ignored);
    for (const char* file : {"samples.idx", "manifest.json", "progress", "settings.json"})
      fs::remove(tmp + "/" + file, ignored);
  }
  fs::remove(tmp, ignored);  // where it is empty
}

// That nothing lies in `dir` but what a call may have left that was killed before it had written the
// settings.
Status CheckEmpty(const std::string& dir) {
  const auto foreign = [&](const std::string& name) {
    return MakeError("{}: is not empty: {} is not of a cache begun here; give another --out", dir, name);
  };
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(dir, none)) {
    const std::string name = entry.path().filename().string();
    if (name != "_tmp") return foreign(name);
  }
  for (const auto& entry : fs::directory_iterator(dir + "/_tmp", none)) {
    const std::string name = entry.path().filename().string();
    if (!IsHalfOf(name, "settings.json")) return foreign("_tmp/" + name);
  }
  return {};
}

// The settings in the version of the form that the settings at `path` are of: a cache goes on, and is
// compared, as it was begun.
CacheSettings AsBegun(const std::string& path, CacheSettings settings) {
  const auto begun = ReadSettings(path);
  if (begun && (*begun)["manifest"].value("version", nlohmann::json()) == 1)
    settings.manifest.shape.knows_length = false;
  return settings;
}

// Makes `dir` with its settings, or checks that what is there was begun with the same.
Status Begin(const std::string& dir, const CacheSettings& settings) {
  const std::string path = dir + "/_tmp/settings.json";
  const nlohmann::json json = SettingsJson(settings);
  if (FileExists(path)) {
    DSPARK_ASSIGN_OR_RETURN(const nlohmann::json begun, ReadSettings(path));
    if (begun == json) return {};
    return MakeError("{}: was begun with other inputs or settings; use --force to make it anew", dir);
  }
  DSPARK_RETURN_IF_ERROR(CheckEmpty(dir));
  std::error_code error;
  fs::create_directories(dir + "/_tmp", error);
  if (error) return MakeError("{}: cannot be made: {}", dir, error.message());
  return WriteWhole(path, json.dump(2));
}

}  // namespace

Result<CacheWriter::File> CacheWriter::File::Open(const std::string& path) {
  File file(path, open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (file.fd_ < 0) return file.Failed();
  return file;
}

CacheWriter::File::File(File&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

CacheWriter::File& CacheWriter::File::operator=(File&& other) noexcept {
  File taken(std::move(other));
  std::swap(path_, taken.path_);
  std::swap(fd_, taken.fd_);
  return *this;
}

CacheWriter::File::~File() {
  if (fd_ >= 0) close(fd_);
}

Error CacheWriter::File::Failed() const {
  return MakeError("{}: cannot be written: {}; mend that and call again to go on", path_,
                   std::strerror(errno));
}

Status CacheWriter::File::Append(const void* bytes, size_t size) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t n = write(fd_, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed();
    at += n;
    size -= size_t(n);
  }
  return {};
}

Status CacheWriter::File::Truncate(uint64_t size) {
  return ftruncate(fd_, off_t(size)) == 0 ? Status() : Failed();
}

Status CacheWriter::File::Sync() { return fsync(fd_) == 0 ? Status() : Failed(); }

bool CacheWriter::File::Lock() { return flock(fd_, LOCK_EX | LOCK_NB) == 0; }

Result<CacheWriter> CacheWriter::Open(const std::string& dir, const CacheSettings& wanted) {
  const CacheSettings settings = AsBegun(dir + "/_tmp/settings.json", wanted);
  DSPARK_RETURN_IF_ERROR(Begin(dir, settings));
  DSPARK_ASSIGN_OR_RETURN(File progress, File::Open(dir + "/_tmp/progress"));
  if (!progress.Lock()) return MakeError("{}: another process is writing to it", dir);
  CacheWriter writer(dir, settings, std::move(progress));
  DSPARK_RETURN_IF_ERROR(writer.Resume());
  return writer;
}

std::string CacheWriter::ShardPath(uint32_t shard) const { return dir_ + "/" + ShardName(int(shard)); }

// Keeps the samples that are wholly there, and drops what was begun behind them.
Status CacheWriter::Resume() {
  std::error_code error;
  if (const auto file = MappedFile::Open(dir_ + "/_tmp/progress")) {  // an empty file cannot be mapped
    for (size_t i = 0; i + sizeof(StoredSample) <= file->bytes().size(); i += sizeof(StoredSample))
      stored_.push_back(LoadUnaligned<StoredSample>(&file->bytes()[i]));
  }
  const auto is_there = [&](const StoredSample& s) {
    const auto bytes = fs::file_size(ShardPath(s.shard), error);
    return !error && s.offset + s.bytes <= bytes;
  };
  while (!stored_.empty() && !is_there(stored_.back())) stored_.pop_back();
  DSPARK_RETURN_IF_ERROR(progress_.Truncate(stored_.size() * sizeof(StoredSample)));
  const uint32_t last = stored_.empty() ? 0 : stored_.back().shard;
  for (uint32_t next = last + 1; fs::remove(ShardPath(next), error); ++next) {
  }
  DSPARK_RETURN_IF_ERROR(OpenShard(last));
  shard_bytes_ = stored_.empty() ? 0 : stored_.back().offset + stored_.back().bytes;
  return shard_->Truncate(shard_bytes_);
}

Status CacheWriter::OpenShard(uint32_t shard) {
  if (shard_) DSPARK_RETURN_IF_ERROR(shard_->Sync());
  DSPARK_ASSIGN_OR_RETURN(File file, File::Open(ShardPath(shard)));
  shard_ = std::make_unique<File>(std::move(file));
  shard_number_ = shard;
  shard_bytes_ = 0;
  return {};
}

Status CacheWriter::Append(const TrainSample& sample) {
  const bool compact = settings_.manifest.form == CacheForm::kCompact;
  const std::string bytes = compact ? CompactBytes(sample, settings_.manifest.shape) : DeepSpecBytes(sample);
  const size_t tokens =
      compact ? size_t(CompactLength(sample.loss_mask, settings_.manifest.shape)) : sample.ids.size();
  if (shard_bytes_ > 0 && shard_bytes_ + bytes.size() > uint64_t(settings_.max_shard_bytes))
    DSPARK_RETURN_IF_ERROR(OpenShard(shard_number_ + 1));
  DSPARK_RETURN_IF_ERROR(shard_->Append(bytes.data(), bytes.size()));
  const StoredSample stored{shard_number_, uint32_t(tokens), shard_bytes_, bytes.size()};
  DSPARK_RETURN_IF_ERROR(progress_.Append(&stored, sizeof(stored)));
  shard_bytes_ += bytes.size();
  stored_.push_back(stored);
  return {};
}

std::string CacheWriter::IndexBytes() const {
  std::string bytes;
  for (size_t i = 0; i < stored_.size(); ++i) {
    if (settings_.manifest.form == CacheForm::kCompact) {
      bytes.append(reinterpret_cast<const char*>(&stored_[i]), sizeof(StoredSample));
    } else {
      const DeepSpecRecord record = DeepSpecRecordOf(stored_[i], i, settings_.manifest.shape);
      bytes.append(reinterpret_cast<const char*>(&record), sizeof(record));
    }
  }
  return bytes;
}

Status CacheWriter::Finish() {
  DSPARK_CHECK(!stored_.empty());
  DSPARK_RETURN_IF_ERROR(shard_->Sync());
  CacheManifest manifest = settings_.manifest;
  manifest.samples = samples();
  manifest.shards = int(shard_number_) + 1;
  DSPARK_RETURN_IF_ERROR(WriteWhole(dir_ + "/_tmp/samples.idx", IndexBytes()));
  DSPARK_RETURN_IF_ERROR(WriteWhole(dir_ + "/_tmp/manifest.json", ManifestJson(manifest).dump(2)));
  std::error_code error;
  for (const char* name : {"samples.idx", "settings.json", "manifest.json"}) {
    const std::string from = fmt::format("{}/_tmp/{}", dir_, name), to = fmt::format("{}/{}", dir_, name);
    // Settings stay in `_tmp` as well: a call that follows a kill right here goes on by them.
    if (std::string_view(name) == "settings.json")
      fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
    else
      fs::rename(from, to, error);
    if (error) return MakeError("{}/{}: cannot be written: {}", dir_, name, error.message());
  }
  RemoveTmp(dir_);
  return {};
}

bool HoldsWholeCache(const std::string& dir) {
  if (!FileExists(dir + "/manifest.json") || !FileExists(dir + "/" + ShardName(0))) return false;
  RemoveTmp(dir);
  return true;
}

Status CheckSameSettings(const std::string& dir, const CacheSettings& wanted) {
  const std::string path = dir + "/settings.json";
  if (!FileExists(path)) {
    return MakeError(
        "{}: holds a whole cache that does not say what it was made from (it has no settings.json); give "
        "another --out, or --force to make it anew",
        dir);
  }
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json found, ReadSettings(path));
  const nlohmann::json expected = SettingsJson(AsBegun(path, wanted));
  if (found == expected) return {};
  const nlohmann::json& manifest = expected["manifest"];
  const nlohmann::json& there = found["manifest"];
  for (const auto& [key, value] : manifest.items()) {
    const nlohmann::json other = there.value(key, nlohmann::json());
    if (other == value) continue;
    return MakeError(
        "{}: holds a whole cache made with other settings: {} is {} there, {} is wanted; --force makes it "
        "anew",
        dir, key, other.dump(), value.dump());
  }
  return MakeError(
      "{}: holds a whole cache made from other inputs, or by another model, --system, --kv, --weights or "
      "--max-shard-bytes; --force makes it anew",
      dir);
}

void RemoveCache(const std::string& dir) {
  const bool begun = ReadSettings(dir + "/_tmp/settings.json").ok();
  if (!begun && !FileExists(dir + "/" + ShardName(0)) && !ReadManifest(dir + "/manifest.json")) return;
  int shards = 0;
  while (FileExists(dir + "/" + ShardName(shards))) ++shards;
  std::error_code ignored;
  for (const char* name : {"manifest.json", "samples.idx", "settings.json"})
    fs::remove(dir + "/" + name, ignored);
  RemoveTmp(dir);
  // The first shard last: it tells a call that follows a kill that this is a cache.
  while (shards > 0) fs::remove(dir + "/" + ShardName(--shards), ignored);
}

}  // namespace dspark

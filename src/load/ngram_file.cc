#include "load/ngram_file.h"

#include <algorithm>
#include <cmath>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/sha256.h"
#include "load/gguf_model.h"
#include "load/printable.h"
#include "load/tensor_file_header.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

constexpr std::string_view kArchitecture = "dspark-ngram";
constexpr int64_t kPerBucket = 8;   // entries, on average
constexpr int64_t kEntryBytes = 6;  // fingerprint, token and level

int64_t BucketsFor(int64_t entries) { return std::max<int64_t>(1, entries / kPerBucket); }

// The upper half of the hash chooses the bucket, its lowest 16 bits tell the bucket's entries apart.
uint64_t BucketOf(uint64_t context, size_t buckets) { return (context >> 32) * buckets >> 32; }

std::string Key(std::string_view name) { return fmt::format("{}.{}", kArchitecture, name); }

template <class T>
std::span<const uint8_t> BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

GgufKeys KeysOf(const NgramConfig& config) {
  GgufKeys keys;
  keys.String("general.architecture", kArchitecture);
  keys.String("general.type", "model");
  keys.U32(Key("order"), uint32_t(config.order));
  keys.U32(Key("vocab_size"), uint32_t(config.vocab));
  keys.U32(Key("target_hidden_size"), uint32_t(config.target_width));
  keys.U32(Key("target_block_count"), uint32_t(config.target_layers));
  keys.String(Key("vocabulary_id"), config.vocabulary);
  if (!config.data.empty()) keys.String(Key("data"), config.data);
  return keys;
}

Result<NgramConfig> ReadConfig(const Gguf& gguf) {
  NgramConfig c;
  DSPARK_ASSIGN_OR_RETURN(c.order, GgufSize(gguf, Key("order")));
  DSPARK_ASSIGN_OR_RETURN(c.vocab, GgufSize(gguf, Key("vocab_size")));
  DSPARK_ASSIGN_OR_RETURN(c.target_width, GgufSize(gguf, Key("target_hidden_size")));
  DSPARK_ASSIGN_OR_RETURN(c.target_layers, GgufSize(gguf, Key("target_block_count")));
  DSPARK_ASSIGN_OR_RETURN(const std::string_view id, gguf.Get<std::string_view>(Key("vocabulary_id")));
  c.vocabulary = id;
  DSPARK_ASSIGN_OR_RETURN(const std::string_view data, gguf.GetOr<std::string_view>(Key("data"), ""));
  c.data = data;
  if (c.order >= 1 && c.order <= kMaxNgramOrder) return c;
  return MakeError("{}: contexts of {} tokens, expected 1 to {}; the file is damaged", gguf.path, c.order,
                   kMaxNgramOrder);
}

template <class T>
Result<std::vector<T>> ReadList(const Gguf& gguf, std::string_view name, TensorType type) {
  const TensorView* tensor = gguf.FindTensor(name);
  if (!tensor || tensor->type != type || tensor->shape.size() != 1) {
    return MakeError("{}: tensor {} is not there as a list of {}; the file is damaged", gguf.path, name,
                     InfoOf(type).name);
  }
  std::vector<T> values(size_t(tensor->shape[0]));
  for (size_t i = 0; i < values.size(); ++i) values[i] = LoadUnaligned<T>(&tensor->bytes[i * sizeof(T)]);
  return values;
}

}  // namespace

int64_t NgramBytes(int64_t entries) { return entries * kEntryBytes + (BucketsFor(entries) + 1) * 4; }

int64_t NgramEntriesIn(int64_t bytes) {
  return std::max<int64_t>(0, (bytes - 8) * kPerBucket / (kEntryBytes * kPerBucket + 4));
}

Status WriteNgramFile(const NgramConfig& config, std::span<const NgramEntry> entries,
                      const std::string& path) {
  std::vector<NgramEntry> sorted(entries.begin(), entries.end());
  std::ranges::sort(sorted, {}, &NgramEntry::context);
  std::vector<uint32_t> starts(size_t(BucketsFor(int64_t(entries.size()))) + 1), tokens;
  std::vector<uint16_t> fingerprints;
  for (const NgramEntry& entry : sorted) {
    DSPARK_CHECK(entry.token >= 0 && entry.token < config.vocab);
    ++starts[BucketOf(entry.context, starts.size() - 1) + 1];
    fingerprints.push_back(uint16_t(entry.context));
    tokens.push_back(uint32_t(entry.token) << 8 | entry.level);
  }
  for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];

  const TensorHeader headers[] = {{"buckets", TensorType::kI32, {int64_t(starts.size())}},
                                  {"fingerprints", TensorType::kI16, {int64_t(fingerprints.size())}},
                                  {"tokens", TensorType::kI32, {int64_t(tokens.size())}}};
  const std::span<const uint8_t> data[] = {BytesOf(starts), BytesOf(fingerprints), BytesOf(tokens)};
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(GgufHeader(KeysOf(config), headers));
  for (const std::span<const uint8_t>& bytes : data) {
    file.Write(bytes);
    file.Write(std::string(size_t(GgufPadded(bytes.size()) - bytes.size()), '\0'));
  }
  return file.Commit();
}

Result<NgramFile> NgramFile::Open(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const GgufFile opened, OpenGgufFile(path));
  return Parse(opened.gguf);
}

Result<NgramFile> NgramFile::Parse(const Gguf& gguf) {
  DSPARK_ASSIGN_OR_RETURN(const std::string_view architecture,
                          gguf.Get<std::string_view>("general.architecture"));
  if (architecture != kArchitecture) {
    return MakeError("{}: architecture {} is not a counted table's, {}", gguf.path, Printable(architecture),
                     kArchitecture);
  }
  NgramFile table;
  table.path_ = gguf.path;
  DSPARK_ASSIGN_OR_RETURN(table.config_, ReadConfig(gguf));
  DSPARK_ASSIGN_OR_RETURN(table.buckets_, ReadList<uint32_t>(gguf, "buckets", TensorType::kI32));
  DSPARK_ASSIGN_OR_RETURN(table.fingerprints_, ReadList<uint16_t>(gguf, "fingerprints", TensorType::kI16));
  DSPARK_ASSIGN_OR_RETURN(table.tokens_, ReadList<uint32_t>(gguf, "tokens", TensorType::kI32));
  const auto& starts = table.buckets_;
  const size_t entries = table.tokens_.size();
  if (table.fingerprints_.size() != entries || starts.size() < 2 || starts.front() != 0 ||
      starts.back() != entries || !std::ranges::is_sorted(starts)) {
    return MakeError("{}: the buckets do not hold the table's {} entries; the file is damaged", gguf.path,
                     entries);
  }
  const auto vocab = uint32_t(table.config_.vocab);
  if (const auto bad = std::ranges::find_if(table.tokens_, [&](uint32_t t) { return t >> 8 >= vocab; });
      bad != table.tokens_.end()) {
    return MakeError("{}: entry {} is token {}, outside the vocabulary of {}; the file is damaged", gguf.path,
                     bad - table.tokens_.begin(), *bad >> 8, vocab);
  }
  return table;
}

std::optional<NgramFile::Next> NgramFile::Find(uint64_t context) const {
  const uint64_t bucket = BucketOf(context, buckets_.size() - 1);
  for (uint32_t i = buckets_[bucket]; i < buckets_[bucket + 1]; ++i) {
    if (fingerprints_[i] != uint16_t(context)) continue;
    return Next{int32_t(tokens_[i] >> 8), float(tokens_[i] & 255) / 255};
  }
  return {};
}

bool LooksLikeNgramFile(const std::string& path) {
  const auto opened = OpenGgufFile(path);
  if (!opened) return false;
  const auto architecture = opened->gguf.GetOr<std::string_view>("general.architecture", "");
  return architecture.ok() && *architecture == kArchitecture;
}

std::string VocabularyId(const Tokenizer* tokenizer) {
  if (!tokenizer) return {};
  std::string all;
  for (int32_t id = 0; id < tokenizer->vocab(); ++id) {
    const std::string_view bytes = tokenizer->TokenBytes(id);
    all += fmt::format("{}:", bytes.size());
    all += bytes;
  }
  return Sha256Hex({reinterpret_cast<const uint8_t*>(all.data()), all.size()}).substr(0, 16);
}

Status CheckNgramFits(const NgramFile& table, const ModelConfig& target, const Tokenizer* tokenizer) {
  const NgramConfig& c = table.config();
  const auto differ = [&](std::string_view what, int counted, int has) {
    return MakeError("{}: counted for a target {} {}, but this target has {}; count one for this very model",
                     table.path(), what, counted, has);
  };
  if (c.vocab != target.vocab) return differ("with a vocabulary of", c.vocab, target.vocab);
  if (c.target_width != target.d_model) return differ("of width", c.target_width, target.d_model);
  if (c.target_layers != target.layers) return differ("with layers", c.target_layers, target.layers);
  const std::string id = VocabularyId(tokenizer);
  if (id.empty() || c.vocabulary.empty() || id == c.vocabulary) return {};
  return MakeError(
      "{}: counted for a target of the same size with other tokens; count one for this very model",
      table.path());
}

}  // namespace dspark

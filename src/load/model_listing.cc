#include "load/model_listing.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "core/mapped_file.h"
#include "load/gguf.h"
#include "load/hf_weights.h"
#include "load/printable.h"
#include "load/safetensors.h"

namespace dspark {
namespace {

constexpr uint64_t kShownElements = 8;
constexpr size_t kShownText = 100;

ListedKey ListKey(std::string_view key, const GgufValue& value) {
  std::string type(GgufTypeName(value.type)), text;
  if (value.is_array) type += fmt::format("[{}]", value.count);
  for (uint64_t i = 0; i < std::min(value.count, kShownElements); ++i) {
    if (i > 0) text += ' ';
    text += GgufElementText(value, i);
  }
  if (value.count > kShownElements) text += " ...";
  return {Printable(key), std::move(type), Printable(text, kShownText)};
}

ModelListing List(const Gguf& gguf, uint64_t file_bytes) {
  ModelListing listing{fmt::format("GGUF v{}", gguf.version), file_bytes, {}, {}};
  for (const auto& [key, value] : gguf.metadata) listing.metadata.push_back(ListKey(key, value));
  for (const TensorView& t : gguf.tensors) {
    listing.tensors.push_back({Printable(t.name), std::string(InfoOf(t.type).name), t.shape, t.bytes.size()});
  }
  return listing;
}

Result<ModelListing> ListFile(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (LooksLikeGguf(file.bytes())) {
    DSPARK_ASSIGN_OR_RETURN(const Gguf gguf, ParseGguf(file.bytes(), path));
    return List(gguf, file.bytes().size());
  }
  DSPARK_ASSIGN_OR_RETURN(const Safetensors parsed, ParseSafetensors(file.bytes(), path));
  ModelListing listing{"safetensors", file.bytes().size(), {}, {}};
  for (const SafeTensor& t : parsed.tensors) {
    listing.tensors.push_back({Printable(t.name), std::string(t.dtype), t.shape, t.bytes.size()});
  }
  return listing;
}

}  // namespace

Result<ModelListing> ListModel(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return ListFile(path);
  DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> files, HfWeightFiles(path));
  ModelListing all{"safetensors", 0, {}, {}};
  for (const std::string& file : files) {
    DSPARK_ASSIGN_OR_RETURN(ModelListing listing, ListFile(file));
    all.file_bytes += listing.file_bytes;
    std::ranges::move(listing.tensors, std::back_inserter(all.tensors));
  }
  return all;
}

}  // namespace dspark

#include "load/model_listing.h"

#include <algorithm>

#include "core/mapped_file.h"
#include "load/gguf.h"
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

}  // namespace

Result<ModelListing> ListModelFile(const std::string& path) {
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

}  // namespace dspark

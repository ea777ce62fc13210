#include "apps/store_temperatures.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "load/gguf.h"
#include "load/tensor_file_header.h"

namespace dspark {
namespace {

constexpr char kKey[] = "confidence_temperatures";

// Ordered, so that the file's other lines stay where they are.
Status StoreInConfig(const std::string& path, std::span<const float> temperatures) {
  std::ifstream in(path);
  auto config = nlohmann::ordered_json::parse(in, nullptr, false);
  if (config.is_discarded() || !config.is_object()) return MakeError("{}: not a JSON object", path);
  config.erase(kKey);
  for (const float t : temperatures) config[kKey].push_back(t);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(config.dump(2) + "\n");
  return file.Commit();
}

Status StoreInGguf(const std::string& path, std::span<const float> temperatures) {
  DSPARK_ASSIGN_OR_RETURN(const GgufFile opened, OpenGgufFile(path));
  const Gguf& gguf = opened.gguf;
  DSPARK_ASSIGN_OR_RETURN(const auto architecture, gguf.Get<std::string_view>("general.architecture"));
  const std::string key = fmt::format("{}.{}", architecture, kKey);
  GgufKeys keys;
  for (const auto& [name, value] : gguf.metadata) {
    if (name != key && name != "general.alignment") keys.Copy(name, value);
  }
  if (!temperatures.empty()) keys.F32s(key, temperatures);
  std::vector<TensorHeader> headers;
  headers.reserve(gguf.tensors.size());
  for (const TensorView& tensor : gguf.tensors) headers.push_back({tensor.name, tensor.type, tensor.shape});
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(GgufHeader(keys, headers));
  for (const TensorView& tensor : gguf.tensors) {
    file.Write(tensor.bytes);
    file.Write(std::string(size_t(GgufPadded(tensor.bytes.size()) - tensor.bytes.size()), '\0'));
  }
  return file.Commit();
}

}  // namespace

Status StoreTemperatures(const std::string& path, std::span<const float> temperatures) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return StoreInConfig(path + "/config.json", temperatures);
  return StoreInGguf(path, temperatures);
}

}  // namespace dspark

#include "load/json_file.h"

#include <filesystem>

#include "core/mapped_file.h"

namespace dspark {

Result<nlohmann::json> ReadJsonObject(const std::string& path) {
  constexpr size_t kMaxBytes = 64 << 20;
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.bytes().size() > kMaxBytes) return MakeError("{}: too large for a configuration file", path);
  auto json =
      nlohmann::json::parse(file.bytes().begin(), file.bytes().end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return MakeError("{}: not a JSON object; download the file again", path);
  return json;
}

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace dspark

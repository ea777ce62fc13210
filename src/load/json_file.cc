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

Result<nlohmann::json> ReadJsonArguments(const std::vector<std::string>& arguments) {
  nlohmann::json json = nlohmann::json::object();
  for (const std::string& argument : arguments) {
    const size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      DSPARK_ASSIGN_OR_RETURN(const nlohmann::json file, ReadJsonObject(argument));
      json.update(file);
      continue;
    }
    const std::string value = argument.substr(equals + 1);
    const nlohmann::json parsed = nlohmann::json::parse(value, nullptr, false);
    json[argument.substr(0, equals)] = parsed.is_discarded() ? nlohmann::json(value) : parsed;
  }
  return json;
}

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace dspark

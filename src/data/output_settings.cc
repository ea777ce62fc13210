#include "data/output_settings.h"

#include "core/atomic_file.h"
#include "load/json_file.h"

namespace dspark {

std::string SettingsPath(const std::string& out) {
  const std::string suffix = ".jsonl";
  return out.substr(0, out.size() - (out.ends_with(suffix) ? suffix.size() : 0)) + "_settings.json";
}

Status KeepSettings(const std::string& out, const nlohmann::ordered_json& settings, bool begun) {
  const std::string path = SettingsPath(out);
  if (begun && FileExists(path)) {
    DSPARK_ASSIGN_OR_RETURN(const nlohmann::json kept, ReadJsonObject(path));
    for (const auto& [key, value] : settings.items()) {
      if (!kept.contains(key) || kept[key] == nlohmann::json(value)) continue;
      return MakeError(
          "{}: was begun with other settings: {} is {} there, {} is wanted; give the same, or another --out",
          out, key, kept[key].dump(), value.dump());
    }
    return {};
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(settings.dump(1) + "\n");
  return file.Commit();
}

}  // namespace dspark

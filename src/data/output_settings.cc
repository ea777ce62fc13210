#include "data/output_settings.h"

#include "core/atomic_file.h"
#include "load/json_file.h"

namespace dspark {
namespace {

// What was kept at `path`. Error: it is no settings of an output.
Result<nlohmann::json> ReadKept(const std::string& path) {
  const auto ours = [](const nlohmann::json& kept) {
    return kept.contains("seed") && kept["seed"].is_number_integer() && kept.contains("system") &&
           kept["system"].is_string();
  };
  Result<nlohmann::json> kept = ReadJsonObject(path);
  if (kept && ours(*kept)) return kept;
  return MakeError(
      "{}: stands where settings are kept, but holds something else; move it, or give another --out", path);
}

Status CheckSame(const std::string& out, const nlohmann::json& kept, const nlohmann::ordered_json& settings) {
  for (const auto& [key, value] : settings.items()) {
    if (!kept.contains(key) || kept[key] == nlohmann::json(value)) continue;
    return MakeError(
        "{}: was begun with other settings: {} is {} there, {} is wanted; give the same, or another --out",
        out, key, kept[key].dump(), value.dump());
  }
  return {};
}

}  // namespace

std::string SettingsPath(const std::string& out) {
  const std::string suffix = ".jsonl";
  return out.substr(0, out.size() - (out.ends_with(suffix) ? suffix.size() : 0)) + "_settings.json";
}

Status CheckSettingsFile(const std::string& out) {
  const std::string path = SettingsPath(out);
  if (!FileExists(path)) return {};
  const auto kept = ReadKept(path);
  return kept ? Status() : kept.error();
}

Status KeepSettings(const std::string& out, const nlohmann::ordered_json& settings, bool begun) {
  const std::string path = SettingsPath(out);
  if (FileExists(path)) {
    DSPARK_ASSIGN_OR_RETURN(const nlohmann::json kept, ReadKept(path));
    if (begun) return CheckSame(out, kept, settings);
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(settings.dump(1) + "\n");
  return file.Commit();
}

}  // namespace dspark

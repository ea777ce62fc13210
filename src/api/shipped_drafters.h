// Drafters that come with dspark: what -md auto finds beside prompt lookup.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "load/model_files.h"
#include "load/ngram_file.h"

namespace dspark {

// The folder that the environment variable DSPARK_DRAFTERS names; else those of an installed program or
// library (share/dspark/drafters) and of a source tree (drafters), as seen from the program's file and
// libdspark's.
std::vector<std::string> ShippedDrafterFolders();

// Of the counted tables in these folders (*.gguf) the first, by name, that was counted from this very model's
// answers; nothing without one. Files that cannot be read are passed over: nobody asked for them.
std::optional<NgramFile> FindShippedTable(const ModelFiles& target, const std::vector<std::string>& folders);

}  // namespace dspark

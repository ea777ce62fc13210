// Small files of model directories (config.json and its companions).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

// The object in the file, at most 64 MB of text. Error: the path with what is wrong.
Result<nlohmann::json> ReadJsonObject(const std::string& path);

// Settings from a command line: files of objects and key=value, each over what stands before it; values are
// JSON, or texts where they are none. Error: as ReadJsonObject.
Result<nlohmann::json> ReadJsonArguments(const std::vector<std::string>& arguments);

// True when there is something at the path that may be looked at.
bool FileExists(const std::string& path);

}  // namespace dspark

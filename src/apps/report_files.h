// The files that --json and --html name.
#pragma once

#include <string>

#include "core/result.h"

namespace dspark {

// Error: one name for both. One report never replaces the other.
Status CheckApart(const std::string& json, const std::string& html);

// Found out at the start, not after an hour. Error: a file that cannot be written, or one name for both.
Status CheckReportFiles(const std::string& json, const std::string& html);

// The file whole, or as it was; an empty path writes nothing.
Status WriteReport(const std::string& path, const std::string& text);

}  // namespace dspark

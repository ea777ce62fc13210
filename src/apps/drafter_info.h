// What `dspark info` says about a drafter.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "load/drafter_files.h"
#include "load/ngram_file.h"

namespace dspark {

// Some lines for people: what it is, what it drafts a round, what it fits.
std::string DescribeDrafter(const DrafterFiles& drafter);

// The same as an object.
nlohmann::json DrafterToJson(const DrafterFiles& drafter);

// The same of a counted table.
std::string DescribeTable(const NgramFile& table);
nlohmann::json TableToJson(const NgramFile& table);

// What it is in a word or two: "DSpark (gated)", "DFlash", "Eagle3", "MTP".
std::string DrafterKindText(const DrafterConfig& config);

}  // namespace dspark

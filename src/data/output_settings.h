// What an output was made with, kept beside it, so that a call that goes on with it cannot mix two ways.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/result.h"

namespace dspark {

// out with _settings.json for .jsonl, or behind a name that does not end so.
std::string SettingsPath(const std::string& out);

// Error: what stands in the place of the settings of `out` is not of this kind.
Status CheckSettingsFile(const std::string& out);

// Where `begun`, the settings that are kept for `out` must be those given; without kept ones (an older
// output) those given are kept from now on. An output that is not begun takes those given. A key that only
// one side has is no difference: it came with another version. `settings` has the keys "seed", a number, and
// "system", a text, as has every file written here. Error: a value that differs, in one line with both; a
// file in their place that is not of this kind, which stays as it is; a file that cannot be read or written.
Status KeepSettings(const std::string& out, const nlohmann::ordered_json& settings, bool begun);

}  // namespace dspark

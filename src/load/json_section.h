// Checked access to the keys of a configuration file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace dspark {

// One JSON object of a file. A null value counts as a missing key, as in transformers. Errors name file and
// key and say what was expected; `otherwise` stands in for a missing key, without it the key is required.
struct JsonSection {
  const nlohmann::json& json;  // must outlive this
  std::string path;            // file, and the object's place in it: "x/config.json: rope_parameters"

  const nlohmann::json* Find(const char* key) const;  // null when missing
  Error Wrong(const char* key, std::string_view expected) const;

  Result<int> Size(const char* key, std::optional<int> otherwise = {}) const;  // a whole number above 0
  Result<float> Real(const char* key, std::optional<float> otherwise = {}) const;
  Result<bool> Flag(const char* key, bool otherwise) const;
  Result<std::string> Text(const char* key, std::string otherwise) const;
  // One token id or a list of them; empty when the key is missing.
  Result<std::vector<int32_t>> TokenIds(const char* key) const;
  // A list of whole numbers, negative ones too; empty when the key is missing.
  Result<std::vector<int>> Numbers(const char* key) const;
  // A list of finite numbers; empty when the key is missing.
  Result<std::vector<float>> Reals(const char* key) const;
  // The object under a key, which must be there.
  Result<JsonSection> Object(const char* key) const;
};

}  // namespace dspark

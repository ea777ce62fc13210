#include "load/json_section.h"

#include <cmath>
#include <limits>

#include "load/printable.h"

namespace dspark {

using Json = nlohmann::json;

const Json* JsonSection::Find(const char* key) const {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

Error JsonSection::Wrong(const char* key, std::string_view expected) const {
  const Json* value = Find(key);
  const auto replace = Json::error_handler_t::replace;
  return MakeError("{}: key {} is {}, expected {}", path, key,
                   value ? Printable(value->dump(-1, ' ', true, replace), 40) : "missing", expected);
}

Result<int> JsonSection::Size(const char* key, std::optional<int> otherwise) const {
  const Json* value = Find(key);
  if (!value && otherwise) return *otherwise;
  if (!value || !value->is_number_unsigned() || value->get<uint64_t>() == 0 ||
      value->get<uint64_t>() > uint64_t(std::numeric_limits<int>::max())) {
    return Wrong(key, "a size");
  }
  return value->get<int>();
}

Result<float> JsonSection::Real(const char* key, std::optional<float> otherwise) const {
  const Json* value = Find(key);
  if (!value && otherwise) return *otherwise;
  if (!value || !value->is_number() || std::fabs(value->get<double>()) > std::numeric_limits<float>::max()) {
    return Wrong(key, "a number");
  }
  return value->get<float>();
}

Result<bool> JsonSection::Flag(const char* key, bool otherwise) const {
  const Json* value = Find(key);
  if (!value) return otherwise;
  if (!value->is_boolean()) return Wrong(key, "true or false");
  return value->get<bool>();
}

Result<std::string> JsonSection::Text(const char* key, std::string otherwise) const {
  const Json* value = Find(key);
  if (!value) return otherwise;
  if (!value->is_string()) return Wrong(key, "a string");
  return value->get<std::string>();
}

Result<std::vector<int32_t>> JsonSection::TokenIds(const char* key) const {
  const Json* value = Find(key);
  std::vector<int32_t> ids;
  if (!value) return ids;
  for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t(std::numeric_limits<int32_t>::max())) {
      return Wrong(key, "a token id or a list of them");
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

Result<std::vector<int>> JsonSection::Numbers(const char* key) const {
  const Json* value = Find(key);
  std::vector<int> numbers;
  if (!value) return numbers;
  if (!value->is_array()) return Wrong(key, "a list of whole numbers");
  for (const Json& item : *value) {
    // A whole number beyond int64 is unsigned and reads as negative here: out of range either way.
    const int64_t number = item.is_number_integer() ? item.get<int64_t>() : INT64_MAX;
    if (number < std::numeric_limits<int>::min() || number > std::numeric_limits<int>::max() ||
        (number < 0 && item.is_number_unsigned())) {
      return Wrong(key, "a list of whole numbers");
    }
    numbers.push_back(int(number));
  }
  return numbers;
}

Result<std::vector<float>> JsonSection::Reals(const char* key) const {
  const Json* value = Find(key);
  std::vector<float> numbers;
  if (!value) return numbers;
  if (!value->is_array()) return Wrong(key, "a list of numbers");
  for (const Json& item : *value) {
    if (!item.is_number() || std::fabs(item.get<double>()) > std::numeric_limits<float>::max()) {
      return Wrong(key, "a list of numbers");
    }
    numbers.push_back(item.get<float>());
  }
  return numbers;
}

Result<JsonSection> JsonSection::Object(const char* key) const {
  const Json* value = Find(key);
  if (!value || !value->is_object()) return Wrong(key, "an object");
  return JsonSection{*value, path + ": " + key};
}

}  // namespace dspark

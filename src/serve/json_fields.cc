#include "serve/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "core/json_depth.h"

namespace dspark {

using nlohmann::json;

std::optional<ApiError> ParseObject(std::string_view body, json* object) {
  if (JsonDepth(body) > kMostJsonDepth)
    return ApiError{.message = fmt::format("the body is nested more than {} levels deep", kMostJsonDepth),
                    .code = "invalid_json"};
  try {
    *object = json::parse(body);
  } catch (const json::parse_error& error) {
    return ApiError{.message = fmt::format("the body is no JSON: something is wrong at byte {}", error.byte),
                    .code = "invalid_json"};
  } catch (const json::exception&) {  // numbers that no double holds
    return ApiError{.message = "the body has a number that is out of range", .code = "invalid_json"};
  }
  if (object->is_object()) return {};
  return ApiError{.message = fmt::format("the body is a JSON {}; send an object {{…}}", object->type_name()),
                  .code = "invalid_json"};
}

std::optional<int64_t> WholeNumber(const json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max())) {
    return {};
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return {};
  const double number = value.get<double>();
  if (std::abs(number) > 1e15 || number != std::floor(number)) return {};
  return int64_t(number);
}

const json* JsonFields::Find(const char* name) const {
  if (failed()) return nullptr;
  const auto at = object_.find(name);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

const json* JsonFields::Object(const char* name) const {
  const json* value = Find(name);
  if (!value || value->is_object()) return value;
  WrongType(name, "an object", *value);
  return nullptr;
}

const json* JsonFields::Array(const char* name) const {
  const json* value = Find(name);
  if (!value || value->is_array()) return value;
  WrongType(name, "an array", *value);
  return nullptr;
}

void JsonFields::Read(const char* name, bool* value) const {
  const json* found = Find(name);
  if (!found) return;
  if (!found->is_boolean()) return WrongType(name, "true or false", *found);
  *value = found->get<bool>();
}

void JsonFields::Read(const char* name, std::string* value) const {
  const json* found = Find(name);
  if (!found) return;
  if (!found->is_string()) return WrongType(name, "a string", *found);
  *value = found->get<std::string>();
}

void JsonFields::Read(const char* name, int64_t low, int64_t high, int* value) const {
  const json* found = Find(name);
  if (!found) return;
  const auto number = WholeNumber(*found);
  if (!number) return WrongType(name, "a whole number", *found);
  if (*number < low || *number > high) {
    return Fail(name, fmt::format("is {}; it must be from {} to {}", *number, low, high));
  }
  *value = int(*number);
}

void JsonFields::Read(const char* name, double low, double high, float* value) const {
  const json* found = Find(name);
  if (!found) return;
  if (!found->is_number()) return WrongType(name, "a number", *found);
  const double number = found->get<double>();
  if (!(number >= low && number <= high)) {
    return Fail(name, fmt::format("is {}; it must be from {} to {}", number, low, high));
  }
  *value = float(number);
}

void JsonFields::Fail(const char* name, std::string message, std::string code) const {
  if (failed()) return;
  const std::string param = path_ + name;
  *error_ = ApiError{.message = param + " " + std::move(message), .param = param, .code = std::move(code)};
}

void JsonFields::WrongType(const char* name, const char* wanted, const json& value) const {
  Fail(name, fmt::format("is a JSON {}; it must be {}", value.type_name(), wanted), "invalid_type");
}

}  // namespace dspark

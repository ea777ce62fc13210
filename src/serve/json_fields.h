// Checked reading of a JSON object's fields: the first error is kept, and what follows it reads nothing.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "serve/openai_request.h"

namespace dspark {

// Error: no JSON, or no object.
std::optional<ApiError> ParseObject(std::string_view body, nlohmann::json* object);

class JsonFields {
 public:
  // `path` stands before the names in errors, such as "messages[2]."; empty at the top. `error` is shared by
  // all readers of one body.
  JsonFields(const nlohmann::json& object, std::string path, std::optional<ApiError>* error)
      : object_(object), path_(std::move(path)), error_(error) {}

  // The field; null where it is absent, JSON's null, or something was wrong before.
  const nlohmann::json* Find(const char* name) const;
  // As Find, and of that type.
  const nlohmann::json* Object(const char* name) const;
  const nlohmann::json* Array(const char* name) const;

  // Absent fields leave `value` as it is.
  void Read(const char* name, bool* value) const;
  void Read(const char* name, std::string* value) const;
  void Read(const char* name, int64_t low, int64_t high, int* value) const;
  void Read(const char* name, double low, double high, float* value) const;

  void Fail(const char* name, std::string message, std::string code = "invalid_value") const;
  bool failed() const { return error_->has_value(); }
  const std::string& path() const { return path_; }

 private:
  void WrongType(const char* name, const char* wanted, const nlohmann::json& value) const;

  const nlohmann::json& object_;
  std::string path_;
  std::optional<ApiError>* error_;
};

// A whole number, be it written 5 or 5.0.
std::optional<int64_t> WholeNumber(const nlohmann::json& value);

}  // namespace dspark

// Errors that come from outside (files, flags, requests) travel as values.
//
// Three kinds of error exist in dspark: a bug is a DSPARK_CHECK (core/check.h) and ends the process; bad
// input is an Error inside a Result; one failing request ends that request only. An Error's text is one line
// that says what is wrong, where, and how to mend it. Library code neither prints nor aborts on input.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/check.h"

namespace dspark {

struct Error {
  std::string text;  // one line: what, where, cure
};

template <class... Args>
Error MakeError(fmt::format_string<Args...> format, Args&&... args) {
  return Error{fmt::format(format, std::forward<Args>(args)...)};
}

// Either a T or an Error. Reading the value of a failed Result is a bug (CHECK).
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    DSPARK_CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    DSPARK_CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    DSPARK_CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  const Error& error() const {
    DSPARK_CHECK(!ok());
    return std::get<1>(state_);
  }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Error> state_;
};

// Success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    DSPARK_CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace dspark

#define DSPARK_CONCAT_INNER(a, b) a##b
#define DSPARK_CONCAT(a, b) DSPARK_CONCAT_INNER(a, b)

// Returns the Error of a failed Status or Result from the enclosing function.
#define DSPARK_RETURN_IF_ERROR(expr)                             \
  do {                                                           \
    if (auto status_ = (expr); !status_) return status_.error(); \
  } while (false)

// DSPARK_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
#define DSPARK_ASSIGN_OR_RETURN(lhs, expr) \
  DSPARK_ASSIGN_OR_RETURN_INNER(DSPARK_CONCAT(result_, __LINE__), lhs, expr)
#define DSPARK_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp) return tmp.error();                       \
  lhs = std::move(tmp).value()

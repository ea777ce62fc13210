// What a call of the C++ interface gives: a value, or an error as a value. Nothing here throws for what comes
// from outside.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "dspark/dspark.h"

namespace dspark {
inline namespace abi0 {

struct Error {
  int32_t code = DSPARK_OK;  // DSPARK_ERROR_*
  std::string text;          // one line: what, where, how to mend it
};

// The line behind a negative number that a function of dspark.h returned on this thread.
inline Error LastError(int64_t code) { return {int32_t(code), dspark_last_error()}; }

// Either a T or an Error. Asking for the one that is not there is a mistake of the program:
// bad_variant_access.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design

  explicit operator bool() const { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const Error& error() const { return std::get<1>(state_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Error> state_;
};

// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  explicit operator bool() const { return error_.code == DSPARK_OK; }
  const Error& error() const { return error_; }  // code DSPARK_OK where there is none

 private:
  Error error_;
};

}  // namespace abi0
}  // namespace dspark

// What commands print. fmt::print throws when a stream is closed or full; these do not: a lost message on
// stderr is nobody's error, and lost output is one that FlushOutput reports.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "core/result.h"

namespace dspark {

// Text to stdout, kept back until its buffer is full or FlushOutput.
void WriteOutput(std::string_view text);
// Text to stderr, at once.
void WriteMessage(std::string_view text);

template <class... Args>
void PrintOutput(fmt::format_string<Args...> format, Args&&... args) {
  WriteOutput(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void PrintMessage(fmt::format_string<Args...> format, Args&&... args) {
  WriteMessage(fmt::format(format, std::forward<Args>(args)...));
}

// Sends what was kept back on its way. Error: it, or anything written to stdout before, did not get there.
Status FlushOutput();

// Gives a standard stream that was closed (`dspark ... >&-`) a file that cannot be used the wrong way, before
// a model's file gets its number. For main, first of all.
void OpenStandardStreams();

}  // namespace dspark

// Names and texts from files, fit for a one-line message.
#pragma once

#include <string>
#include <string_view>

namespace dspark {

// Bytes outside printable ASCII become \xHH, so that no file can break or colour a message; what is longer
// than `limit` characters is cut and ends in "...".
std::string Printable(std::string_view text, size_t limit = 80);

}  // namespace dspark

// Little-endian values at any address (files promise no alignment).
#pragma once

#include <bit>
#include <cstring>

namespace dspark {

static_assert(std::endian::native == std::endian::little, "files are read in place, without swapping bytes");

template <class T>
T LoadUnaligned(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

}  // namespace dspark

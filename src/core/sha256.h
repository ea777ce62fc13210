// SHA-256 (FIPS 180-4), for checking downloads: some 300 MB/s, so not for every start.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace dspark {

// The digest of `bytes` as 64 lower-case hexadecimal digits.
std::string Sha256Hex(std::span<const uint8_t> bytes);

}  // namespace dspark

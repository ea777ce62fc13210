// A read-only memory map of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/result.h"

namespace dspark {

class MappedFile {
 public:
  // Error: missing, unreadable, a directory, or empty (says which, with the path).
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  // Gives the resident pages of [offset, offset + size) back; reading them again reads the file again. Called
  // as tensors are repacked, so that loading never holds the weights twice.
  void Release(size_t offset, size_t size) const;

 private:
  MappedFile() = default;
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dspark

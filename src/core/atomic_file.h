// A file that appears whole or not at all.
#pragma once

#include <cstdio>
#include <memory>
#include <span>
#include <string>

#include "core/result.h"

namespace dspark {

// Written under a name of its own beside `path`; Commit gives it its name, replacing what was there. Without
// Commit nothing is left behind.
class AtomicFile {
 public:
  static Result<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&&) = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Errors are kept for Commit.
  void Write(std::span<const uint8_t> bytes);
  void Write(const std::string& bytes);
  // On disk, then renamed. Error: path and what the system says.
  Status Commit();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  AtomicFile(std::string path, std::string temporary, std::FILE* file)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(file) {}

  std::string path_, temporary_;
  int error_ = 0;                           // errno of the first write that failed
  std::unique_ptr<std::FILE, Close> file_;  // null once committed
};

}  // namespace dspark

// Rows of an input that cannot be used: counted, the first ones kept to be shown, all of them written to a
// file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/atomic_file.h"

namespace dspark {

class RejectedRows {
 public:
  // `path`, unless empty, is written when there are any: {"where": "file:line", "reason", "row"}, a line
  // each; without any, one that an earlier call left there is removed.
  explicit RejectedRows(std::string path) : path_(std::move(path)) {}

  // Error: what stands at `path` was not written by this class, and would be replaced.
  static Status CheckPath(const std::string& path);

  // Error: the file cannot be made.
  Status Add(const std::string& where, const std::string& reason, const std::string& row);
  // Closes the file; may be called again when no row was added since.
  Status Commit();

  int64_t count() const { return count_; }
  const std::vector<std::string>& first() const { return first_; }  // "file:line: reason", at most 5
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::optional<AtomicFile> file_;
  std::vector<std::string> first_;
  int64_t count_ = 0;
};

}  // namespace dspark

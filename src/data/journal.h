// JSON lines that outlive the death of their writer: every line is whole, and none is written twice by two
// processes at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/function_ref.h"
#include "core/result.h"

namespace dspark {

class Journal {
 public:
  // Opens or creates `path` for this process alone and calls visit(line, number from 1) for each line that is
  // there. What stands behind the last newline is the torn line of a writer that was killed: it is cut off,
  // once all lines before it were visited without an error, or where there are none is_ours(torn) says that
  // it was written here. Error: the path cannot be opened or read, another process has it open as a Journal,
  // what would be cut off is not ours, or visit's own.
  static Result<Journal> Open(const std::string& path,
                              FunctionRef<Status(const std::string& line, int64_t number)> visit,
                              FunctionRef<bool(const std::string& torn)> is_ours);
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&& other) noexcept;
  ~Journal();

  // Writes the line and its newline with one write(2). Lines are on disk at most kSyncMs and one more line
  // later. Error: path and what the system says; the file then ends where it ended before.
  Status Append(std::string line);
  Status Sync();

  static constexpr double kSyncMs = 2000;

 private:
  Journal(std::string path, int file) : path_(std::move(path)), file_(file) {}
  Error Failed() const;

  std::string path_;
  int file_ = -1;
  int64_t size_ = 0;  // bytes, whole lines
  double synced_ms_ = 0;
};

}  // namespace dspark

// The lines of a text file, plain or gzip, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/result.h"

struct gzFile_s;

namespace dspark {

class LineReader {
 public:
  // Error: missing, unreadable, or no file.
  static Result<LineReader> Open(const std::string& path);

  // Puts the next line that is not blank, without its "\n", into `line`; false at the end. Error: damaged
  // gzip, or a line of more than 256 MB.
  Result<bool> Next(std::string* line);

  // Of the line last read: "file:line", counted from 1.
  std::string where() const;

 private:
  struct Close {
    void operator()(gzFile_s* file) const;
  };
  LineReader(std::string path, gzFile_s* file) : path_(std::move(path)), file_(file) {}
  Result<bool> Fill();
  Result<bool> NextLine(std::string* line);

  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::string buffer_;  // read and not yet given out: from `at_` on
  size_t at_ = 0;
  int64_t number_ = 0;
};

}  // namespace dspark

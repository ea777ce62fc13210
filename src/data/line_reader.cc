#include "data/line_reader.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace dspark {
namespace {

constexpr size_t kChunkBytes = 256 << 10, kMaxLineBytes = 256 << 20;

}  // namespace

void LineReader::Close::operator()(gzFile_s* file) const { gzclose(file); }

Result<LineReader> LineReader::Open(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return MakeError("{}: is a directory, not a JSONL file", path);
  gzFile file = gzopen(path.c_str(), "rbe");
  if (!file) return MakeError("{}: cannot open: {}", path, std::strerror(errno));
  gzbuffer(file, kChunkBytes);
  return LineReader(path, file);
}

std::string LineReader::where() const { return fmt::format("{}:{}", path_, number_); }

// Reads on behind what is left; false at the end of the file.
Result<bool> LineReader::Fill() {
  buffer_.erase(0, at_);
  at_ = 0;
  const size_t had = buffer_.size();
  if (had > kMaxLineBytes) return MakeError("{}:{}: the line is too long", path_, number_ + 1);
  buffer_.resize(had + kChunkBytes);
  const int n = gzread(file_.get(), buffer_.data() + had, kChunkBytes);
  buffer_.resize(had + (n > 0 ? size_t(n) : 0));
  int code = Z_OK;
  const char* says = gzerror(file_.get(), &code);
  if (n < 0 || (n == 0 && code != Z_OK && code != Z_STREAM_END)) {
    return MakeError("{}: cannot be read behind line {}: {}; the file is damaged, get it again", path_,
                     number_, says);
  }
  return n > 0;
}

Result<bool> LineReader::NextLine(std::string* line) {
  size_t searched = at_, end;
  while ((end = buffer_.find('\n', searched)) == std::string::npos) {
    searched = buffer_.size() - at_;
    DSPARK_ASSIGN_OR_RETURN(const bool more, Fill());
    if (more) continue;
    if (buffer_.empty()) return false;
    end = buffer_.size();  // a last line without "\n"
    break;
  }
  line->assign(buffer_, at_, end - at_);
  at_ = std::min(end + 1, buffer_.size());
  ++number_;
  return true;
}

Result<bool> LineReader::Next(std::string* line) {
  for (;;) {
    DSPARK_ASSIGN_OR_RETURN(const bool more, NextLine(line));
    if (!more || line->find_first_not_of(" \t\r") != std::string::npos) return more;
  }
}

}  // namespace dspark

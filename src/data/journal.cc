#include "data/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/clock.h"

namespace dspark {

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      size_(other.size_),
      synced_ms_(other.synced_ms_) {}

Journal& Journal::operator=(Journal&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  std::swap(synced_ms_, other.synced_ms_);
  return *this;
}

Journal::~Journal() {
  if (file_ >= 0) close(file_);
}

Error Journal::Failed() const {
  return MakeError("{}: cannot be written: {}; check the directory, its rights and the free space", path_,
                   std::strerror(errno));
}

Result<Journal> Journal::Open(const std::string& path,
                              FunctionRef<Status(const std::string& line, int64_t number)> visit,
                              FunctionRef<bool(const std::string& torn)> is_ours) {
  Journal journal(path, open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (journal.file_ < 0) return journal.Failed();
  if (flock(journal.file_, LOCK_EX | LOCK_NB) != 0) {
    return MakeError("{}: another process is writing this file; wait for its end, or stop it", path);
  }
  std::ifstream in(path, std::ios::binary);
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (in.eof()) {  // no newline
      if (!line.starts_with('{') || (number == 1 && !is_ours(line))) {
        return MakeError(
            "{}:{}: not a line that this command wrote; give the name of a file of its own, or a "
            "new one",
            path, number);
      }
      if (ftruncate(journal.file_, journal.size_) != 0) return journal.Failed();
      break;
    }
    DSPARK_RETURN_IF_ERROR(visit(line, number));
    journal.size_ += int64_t(line.size()) + 1;
  }
  if (in.bad()) return MakeError("{}: cannot be read; check the disk", path);
  journal.synced_ms_ = NowMs();
  return journal;
}

Status Journal::Append(std::string line) {
  line += '\n';
  const ssize_t written = write(file_, line.data(), line.size());
  if (written != ssize_t(line.size())) {
    if (written >= 0) errno = ENOSPC;
    const Error failed = Failed();
    // What was written of the line would be joined to the next one.
    if (ftruncate(file_, size_) != 0) return failed;
    return failed;
  }
  size_ += written;
  return NowMs() - synced_ms_ > kSyncMs ? Sync() : Status();
}

Status Journal::Sync() {
  if (fdatasync(file_) != 0 && errno != EINVAL) return Failed();  // EINVAL: no file on a disk
  synced_ms_ = NowMs();
  return {};
}

}  // namespace dspark

#include "train/out_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace dspark {

OutLock::OutLock(OutLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

OutLock::~OutLock() {
  if (fd_ >= 0) close(fd_);
}

Result<OutLock> OutLock::Take(const std::string& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return MakeError("{}: cannot be made: {}", dir, error.message());
  OutLock lock(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.fd_ < 0) return MakeError("{}: cannot be opened: {}", dir, std::strerror(errno));
  if (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    return MakeError("{}: another run trains into it; wait for its end, stop it, or give another out", dir);
  }
  return lock;
}

}  // namespace dspark

#include "core/atomic_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace dspark {
namespace {

Error Failed(const std::string& path, int error) {
  return MakeError("{}: cannot be written: {}; check the directory, its rights and the free space", path,
                   std::strerror(error));
}

}  // namespace

Result<AtomicFile> AtomicFile::Create(const std::string& path) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (!file) return Failed(path, errno);
  return AtomicFile(path, temporary, file);
}

AtomicFile::~AtomicFile() {
  if (file_) unlink(temporary_.c_str());
}

void AtomicFile::Write(std::span<const uint8_t> bytes) {
  errno = 0;
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
  if (!written && error_ == 0) error_ = errno ? errno : EIO;
}

void AtomicFile::Write(const std::string& bytes) {
  Write({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

Status AtomicFile::Commit() {
  if (error_ != 0) return Failed(path_, error_);
  errno = 0;
  const bool whole = std::fflush(file_.get()) == 0 && fsync(fileno(file_.get())) == 0;
  if (!whole) return Failed(path_, errno ? errno : EIO);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed(path_, errno);
  file_.reset();
  return {};
}

}  // namespace dspark

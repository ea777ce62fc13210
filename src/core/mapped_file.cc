#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace dspark {

Result<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hang us
  if (fd < 0) return MakeError("{}: cannot open: {}", path, std::strerror(errno));
  struct stat info {};
  const bool readable = fstat(fd, &info) == 0;
  MappedFile file;
  file.path_ = path;
  file.size_ = size_t(info.st_size);
  if (!readable || !S_ISREG(info.st_mode) || info.st_size == 0) {
    close(fd);
    if (readable && S_ISREG(info.st_mode)) return MakeError("{}: the file is empty", path);
    if (readable && S_ISDIR(info.st_mode)) return MakeError("{}: is a directory, not a file", path);
    return MakeError("{}: not a regular file", path);
  }
  void* p = mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (p == MAP_FAILED) return MakeError("{}: cannot map: {}", path, std::strerror(errno));
  file.data_ = static_cast<const uint8_t*>(p);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  MappedFile taken(std::move(other));  // what this mapped is unmapped now, not when `other` goes
  std::swap(path_, taken.path_);
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::Release(size_t offset, size_t size) const {
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + size) / page * page;
  if (begin < end) madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace dspark

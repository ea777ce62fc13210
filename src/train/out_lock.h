// One training run a directory.
#pragma once

#include <string>

#include "core/result.h"

namespace dspark {

// Holds a directory as long as it lives, or its process does.
class OutLock {
 public:
  // Makes the directory if need be. Error: it cannot be made, or another run holds it.
  static Result<OutLock> Take(const std::string& dir);

  OutLock(OutLock&& other) noexcept;
  OutLock& operator=(OutLock&& other) = delete;
  ~OutLock();

 private:
  explicit OutLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace dspark

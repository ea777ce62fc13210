// Memory for weights, KV and workspaces: sized once, zeroed, aligned for the widest vector load.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "core/check.h"

namespace dspark {

// An array of `T` in pages of its own: 4 KiB aligned, zero-filled, backed only when first written, huge pages
// asked for when it is large. Running out of address space is a CHECK: sizes are planned and validated
// before.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(size_t size) : size_(size) {
    DSPARK_CHECK_LE(size, SIZE_MAX / sizeof(T));
    if (size == 0) return;
    void* p = mmap(nullptr, Bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    DSPARK_CHECK(p != MAP_FAILED);
    if (Bytes() >= size_t{4} << 20) madvise(p, Bytes(), MADV_HUGEPAGE);
    data_ = static_cast<T*>(p);
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));  // what this held is freed now, not when `other` goes
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    return *this;
  }
  ~Buffer() {
    if (data_) munmap(data_, Bytes());
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t Bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dspark

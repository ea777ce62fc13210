#include "kv/block_pool.h"

#include <utility>

#include "core/check.h"

namespace dspark {

BlockPool::BlockPool(const KvLayout& layout, int blocks)
    : layout_(layout),
      blocks_(blocks),
      memory_(size_t(blocks) * layout.BlockBytes()),
      holders_(size_t(blocks)) {
  // Taken from the back: low addresses first, so that pages past the high-water mark are never backed.
  free_.reserve(size_t(blocks));
  for (int i = blocks - 1; i >= 0; --i) free_.push_back(memory_.data() + size_t(i) * layout.BlockBytes());
}

BlockPool::~BlockPool() { DSPARK_CHECK_EQ(free_blocks(), blocks_); }

std::byte* BlockPool::Take() {
  if (free_.empty()) return nullptr;
  std::byte* block = free_.back();
  free_.pop_back();
  holders_[Index(block)] = 1;
  return block;
}

void BlockPool::Hold(std::byte* block) {
  DSPARK_CHECK_LE(1, holders(block));
  shared_ += ++holders_[Index(block)] == 2;
}

void BlockPool::Give(std::byte* block) {
  DSPARK_CHECK_LE(1, holders(block));
  const int left = --holders_[Index(block)];
  shared_ -= left == 1;
  if (left == 0) free_.push_back(block);
}

KvTable::KvTable(KvTable&& other) noexcept : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})) {}

KvTable& KvTable::operator=(KvTable&& other) noexcept {
  if (this != &other) {
    Truncate(0);
    pool_ = other.pool_;
    blocks_ = std::exchange(other.blocks_, {});
  }
  return *this;
}

KvTable::~KvTable() { Truncate(0); }

bool KvTable::Reserve(int tokens) {
  const int missing = BlocksFor(tokens) - int(blocks_.size());
  if (missing > pool_->free_blocks()) return false;
  for (int i = 0; i < missing; ++i) blocks_.push_back(pool_->Take());
  return true;
}

void KvTable::Truncate(int tokens) {
  DSPARK_CHECK_LE(tokens, capacity());
  for (const size_t kept = size_t(BlocksFor(tokens)); blocks_.size() > kept; blocks_.pop_back()) {
    pool_->Give(blocks_.back());
  }
}

void KvTable::Append(std::byte* block) {
  pool_->Hold(block);
  blocks_.push_back(block);
}

void KvTable::Replace(size_t i, std::byte* block) {
  pool_->Hold(block);
  pool_->Give(std::exchange(blocks_[i], block));
}

int KvTable::BlocksFor(int tokens) const {
  DSPARK_CHECK_GE(tokens, 0);
  return pool_->layout().BlocksFor(tokens);
}

}  // namespace dspark

// Paged KV memory: a pool of fixed-size blocks, and the table of blocks each sequence holds.
//
// A table's life: Reserve(n) before a forward writes rows up to position n - 1, Truncate(n) after
// verification drops the rejected rows; the blocks go back to the pool at once. Blocks are counted: full ones
// may stand in several tables and in a PrefixCache, and are free when nobody holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "kernels/attention.h"

namespace dspark {

class BlockPool {
 public:
  BlockPool(const KvLayout& layout, int blocks);
  ~BlockPool();  // CHECKs that every block has come back
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  const KvLayout& layout() const { return layout_; }
  int blocks() const { return blocks_; }
  int free_blocks() const { return int(free_.size()); }
  int shared_blocks() const { return shared_; }  // of several holders
  // Bytes of address space; pages are backed when first written.
  size_t Bytes() const { return memory_.Bytes(); }

  std::byte* Take();            // one holder; null when the pool is empty
  void Hold(std::byte* block);  // one holder more
  void Give(std::byte* block);  // one holder less
  int holders(const std::byte* block) const { return holders_[Index(block)]; }

 private:
  size_t Index(const std::byte* block) const { return size_t(block - memory_.data()) / layout_.BlockBytes(); }

  KvLayout layout_;
  int blocks_;
  Buffer<std::byte> memory_;
  std::vector<int32_t> holders_;  // [blocks]
  int shared_ = 0;
  std::vector<std::byte*> free_;
};

// The blocks of one sequence. Moves, does not copy; gives its blocks back when destroyed. The pool must
// outlive it.
class KvTable {
 public:
  explicit KvTable(BlockPool& pool) : pool_(&pool) {}
  KvTable(KvTable&& other) noexcept;
  KvTable& operator=(KvTable&& other) noexcept;
  ~KvTable();

  // Makes room for positions 0 … tokens - 1. False when the pool has too few blocks; then nothing has
  // changed.
  [[nodiscard]] bool Reserve(int tokens);
  // Keeps positions 0 … tokens - 1, tokens ≤ capacity.
  void Truncate(int tokens);

  // Holds `block`, whose rows are written, behind the blocks there are.
  void Append(std::byte* block);
  // Holds `block`, which has the same content, in place of block i.
  void Replace(size_t i, std::byte* block);

  BlockPool& pool() const { return *pool_; }
  int capacity() const { return int(blocks_.size()) * pool_->layout().block_tokens; }
  KvBlocks blocks() const { return blocks_; }

 private:
  int BlocksFor(int tokens) const;

  BlockPool* pool_;
  std::vector<std::byte*> blocks_;
};

}  // namespace dspark

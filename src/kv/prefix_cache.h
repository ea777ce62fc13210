// What earlier text left in KV blocks, so that a prompt which begins like it is not run again.
//
// A tree of full blocks. A node stands for `block_tokens` consecutive tokens behind its parent's and for the
// token after them: drafters that pair a state with the next token (Eagle3, MTP) keep K/V that depends on it.
// It holds the target's block and, where a drafter observed the text, the drafter's block of the same
// positions, so acceptance after a hit is what it was without. Nodes are found by a chain of hashes and
// compared token by token. Those that nobody else holds are given back when the pool runs out, the least
// recently used first, leaves before their parents.
//
// K/V bits depend on nothing but the tokens up to their row, so a table may swap its own block for the
// tree's.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"

namespace dspark {

class PrefixCache {
 public:
  struct Node;

  // `blocks`, which is shared by nobody else, outlives the cache, as do the pools of the drafter tables that
  // are published.
  explicit PrefixCache(BlockPool& blocks) : blocks_(blocks) {}
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Where a sequence stands in the tree: its last full block that is there. None: at the root.
  struct Place {
    Node* node = nullptr;
    int blocks = 0;  // from the root to `node`
  };
  struct Found {
    int rows = 0;  // K/V of positions 0 … rows - 1 are in the tables
    Place place;
  };

  // Fills the empty `kv`, and the drafter's empty `context` where there is one, with the longest known
  // beginning of `tokens`, at most all but the last. Full blocks are shared, a part of one is copied. With a
  // `context`, only nodes that hold a drafter's block count.
  Found Adopt(std::span<const int32_t> tokens, KvTable* kv, KvTable* context);

  // Adds the full blocks of `tokens` whose rows (0 … rows - 1) are written and whose next token is known,
  // from `place` on, which is moved. Tables get the tree's blocks where it has them. `context`: null where no
  // drafter observed the text.
  void Publish(std::span<const int32_t> tokens, int rows, KvTable* kv, KvTable* context, Place* place);

  // Gives blocks back until the pool has `free` of them. False when that cannot be.
  bool MakeRoom(int free);
  // Blocks nobody but the cache holds.
  int idle_blocks() const { return nodes() - blocks_.shared_blocks(); }
  int nodes() const { return int(by_hash_.size()); }

 private:
  using Tokens = std::span<const int32_t>;
  Node* Child(const Node* parent, Tokens tokens);
  Node* Add(Node* parent, Tokens tokens, std::byte* block);
  void Touch(Node* node);
  void Remove(Node* node);
  int CopyPart(const Node* parent, Tokens tokens, KvTable* kv, KvTable* context);
  size_t BlockTokens() const { return size_t(blocks_.layout().block_tokens); }

  BlockPool& blocks_;
  std::unordered_multimap<uint64_t, Node*> by_hash_;
  std::list<Node*> by_use_;  // the most recent first; a parent never behind its children
  std::vector<Node*> top_;   // children of the root
};

}  // namespace dspark

#include "kv/prefix_cache.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/token_hash.h"

namespace dspark {

struct PrefixCache::Node {
  Node* parent;
  uint64_t hash;                 // of the chain down to here
  std::vector<int32_t> tokens;   // [block_tokens + 1]: the last is the token after the block
  std::byte* block;              // the target's
  std::byte* context = nullptr;  // the drafter's
  BlockPool* context_pool = nullptr;
  std::vector<Node*> children;
  std::list<Node*>::iterator use;
};

namespace {

// Copying part of a block is not worth fewer rows than this.
constexpr int kLeastPart = 8;
// Siblings that are looked through for such a part: the youngest.
constexpr size_t kMostSiblings = 16;

uint64_t ChainOf(const PrefixCache::Node* node) { return node ? node->hash : 0x6473706172; }

int CommonLength(std::span<const int32_t> a, std::span<const int32_t> b) {
  return int(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

PrefixCache::~PrefixCache() {
  while (!by_use_.empty()) Remove(by_use_.back());
}

PrefixCache::Node* PrefixCache::Child(const Node* parent, Tokens tokens) {
  const auto [begin, end] = by_hash_.equal_range(HashTokens(ChainOf(parent), tokens));
  for (auto it = begin; it != end; ++it) {
    if (it->second->parent == parent && std::ranges::equal(it->second->tokens, tokens)) return it->second;
  }
  return nullptr;
}

PrefixCache::Node* PrefixCache::Add(Node* parent, Tokens tokens, std::byte* block) {
  auto* node = new Node{.parent = parent,
                        .hash = HashTokens(ChainOf(parent), tokens),
                        .tokens = {tokens.begin(), tokens.end()},
                        .block = block,
                        .children = {},
                        .use = {}};
  blocks_.Hold(block);
  by_hash_.emplace(node->hash, node);
  (parent ? parent->children : top_).push_back(node);
  node->use = by_use_.insert(by_use_.begin(), node);
  return node;
}

// The node and all above it are the most recently used ones, parents before their children.
void PrefixCache::Touch(Node* node) {
  for (; node; node = node->parent) by_use_.splice(by_use_.begin(), by_use_, node->use);
}

void PrefixCache::Remove(Node* node) {
  DSPARK_CHECK(node->children.empty());
  std::erase(node->parent ? node->parent->children : top_, node);
  const auto [begin, end] = by_hash_.equal_range(node->hash);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == node; }));
  by_use_.erase(node->use);
  blocks_.Give(node->block);
  if (node->context) node->context_pool->Give(node->context);
  delete node;
}

PrefixCache::Found PrefixCache::Adopt(std::span<const int32_t> tokens, KvTable* kv, KvTable* context) {
  DSPARK_CHECK(kv->capacity() == 0 && (!context || context->capacity() == 0));
  const size_t size = BlockTokens();
  Found found;
  for (size_t at = 0; at + size < tokens.size(); at += size) {
    Node* next = Child(found.place.node, tokens.subspan(at, size + 1));
    if (!next || (context && !next->context)) break;
    kv->Append(next->block);
    if (context) context->Append(next->context);
    found.place = {next, found.place.blocks + 1};
  }
  found.rows = int(size) * found.place.blocks;
  Touch(found.place.node);
  found.rows += CopyPart(found.place.node, tokens.subspan(size_t(found.rows)), kv, context);
  return found;
}

// Rows of the child of `parent` that has most in common with `tokens`.
int PrefixCache::CopyPart(const Node* parent, Tokens tokens, KvTable* kv, KvTable* context) {
  const std::vector<Node*>& siblings = parent ? parent->children : top_;
  const Node* source = nullptr;
  int most = kLeastPart - 1;
  for (size_t i = 0; i < std::min(siblings.size(), kMostSiblings); ++i) {
    const Node* node = siblings[siblings.size() - 1 - i];
    if (context && !node->context) continue;
    // The last common token's row may be paired with a token that is not common.
    const int rows = CommonLength(node->tokens, tokens) - 1;
    if (rows > most) source = node, most = rows;
  }
  if (!source) return 0;
  const int before = kv->capacity();
  if (!kv->Reserve(before + most)) return 0;
  if (context && !context->Reserve(before + most)) {
    kv->Truncate(before);
    return 0;
  }
  std::memcpy(kv->blocks().back(), source->block, blocks_.layout().BlockBytes());
  if (context) std::memcpy(context->blocks().back(), source->context, context->pool().layout().BlockBytes());
  return most;
}

void PrefixCache::Publish(std::span<const int32_t> tokens, int rows, KvTable* kv, KvTable* context,
                          Place* place) {
  const size_t size = BlockTokens();
  for (;; ++place->blocks) {
    const size_t i = size_t(place->blocks), at = i * size;
    if (at + size > size_t(rows) || at + size >= tokens.size()) return;
    const Tokens key = tokens.subspan(at, size + 1);
    Node* node = Child(place->node, key);
    if (!node) node = Add(place->node, key, kv->blocks()[i]);
    if (node->block != kv->blocks()[i]) kv->Replace(i, node->block);
    if (context && !node->context) {
      node->context = context->blocks()[i];
      node->context_pool = &context->pool();
      node->context_pool->Hold(node->context);
    } else if (context && node->context != context->blocks()[i]) {
      context->Replace(i, node->context);
    }
    Touch(node);
    place->node = node;
  }
}

bool PrefixCache::MakeRoom(int free) {
  for (auto it = by_use_.end(); blocks_.free_blocks() < free && it != by_use_.begin();) {
    Node* node = *--it;
    if (blocks_.holders(node->block) > 1 || !node->children.empty()) continue;
    it = std::next(it);  // valid after the removal, and behind the next candidate
    Remove(node);
  }
  return blocks_.free_blocks() >= free;
}

}  // namespace dspark

// Attention of many rows over paged KV: causal, or bidirectional inside a block of rows.
//
// A KV block holds `block_tokens` consecutive positions of one sequence for all layers. Per layer and KV head
// it holds K transposed, [head_dim][block_tokens], so that one vector load gives the same component of 16
// keys, and V as [block_tokens][head_dim]; both fp16 or both fp32.
//
// The arithmetic of one (row, head) is fixed by absolute position alone: keys in chunks of kAttentionChunk
// positions; within a chunk score = scale * Σ_d q[d] k[d] in order of d, softmax over the chunk, Σ p v in
// order of position; chunks merged in order (attention_ref.cc). It depends neither on how many rows are in
// the call, nor on the batch, the block size, the workers or the instruction set, and nothing at a later
// position than it sees can touch a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/buffer.h"
#include "core/thread_pool.h"

namespace dspark {

inline constexpr int kAttentionChunk = 256;  // positions reduced together; a multiple of every block size

enum class KvType { kF16, kF32 };

inline constexpr size_t KvElementBytes(KvType type) {
  return type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t);
}

// Sizes and offsets in elements, but for BlockBytes.
struct KvLayout {
  int layers = 0, kv_heads = 0, head_dim = 0;
  int block_tokens = 32;  // 16, 32, 64, 128 or 256
  KvType type = KvType::kF16;

  size_t HeadElements() const { return size_t(head_dim) * block_tokens; }
  size_t BlockElements() const { return size_t(2) * layers * kv_heads * HeadElements(); }
  size_t BlockBytes() const { return BlockElements() * KvElementBytes(type); }
  // Blocks that hold positions 0 … positions - 1.
  int BlocksFor(int positions) const { return positions / block_tokens + (positions % block_tokens != 0); }
  size_t KOffset(int layer, int head) const { return (size_t(layer) * kv_heads + head) * 2 * HeadElements(); }
  size_t VOffset(int layer, int head) const { return KOffset(layer, head) + HeadElements(); }
};

// The blocks of one sequence, in order of position; BlockBytes each.
using KvBlocks = std::span<std::byte* const>;

// Consecutive rows of one sequence in a batch: row first_row + i is at position first_position + i.
struct AttentionSegment {
  KvBlocks blocks;  // cover positions 0 … first_position + rows - 1
  int first_row = 0, rows = 0, first_position = 0;
  bool bidirectional = false;  // the rows see each other, not only those before (a drafter's block)

  // Keys that row i of the segment sees: positions 0 … Keys(i) - 1.
  int Keys(int i) const { return first_position + (bidirectional ? rows : i + 1); }
};

struct AttentionShape {
  KvLayout layout;
  int heads = 0;    // query heads, a multiple of kv_heads
  float scale = 0;  // on the scores, usually head_dim^-1/2
};

// Writes k and v of every row ([kv_heads * head_dim] floats per row, `stride` apart) into the rows' blocks,
// rounded to nearest even where these hold fp16.
// This worker's share; a barrier must follow before Attention reads them.
void StoreKv(const Worker& worker, const KvLayout& layout, int layer,
             std::span<const AttentionSegment> segments, const float* k, const float* v, size_t stride);

// Memory of Attention, sized once for the largest call: per worker one tile's queries, scores and results;
// and partial results of a few rows, so that a few rows with a long context can be shared among workers chunk
// by chunk. Its fields are the business of attention.cc.
struct AttentionWorkspace {
  AttentionWorkspace() = default;
  AttentionWorkspace(const AttentionShape& shape, int max_rows, int max_context, int workers);

  // Bytes of a workspace of these arguments, before there is one.
  static size_t BytesFor(const AttentionShape& shape, int max_rows, int max_context, int workers);
  size_t Bytes() const { return scratch.Bytes() + partials.Bytes(); }

  int max_chunks = 0, split_rows = 0;
  size_t scratch_per_worker = 0;
  Buffer<float> scratch;   // [workers][scratch_per_worker]
  Buffer<float> partials;  // [split_rows][heads][max_chunks] records of attention_chunk.h
};

// out[row] = concatenated heads, [heads * head_dim] floats. q is laid out like out. Every worker calls it; it
// has a barrier inside only when a row spans several chunks, and out is complete after the next barrier. Rows
// of the segments are distinct, at most the workspace's max_rows in all, with positions below its
// max_context.
void Attention(Worker& worker, const AttentionShape& shape, int layer,
               std::span<const AttentionSegment> segments, const float* q, size_t q_stride, float* out,
               size_t out_stride, AttentionWorkspace& workspace);

}  // namespace dspark

// What attention.cc asks of an instruction set: one chunk of keys for a tile of queries, and the merge of
// chunks.
//
// Keys and values are fp16 (uint16_t) or fp32 (float); either way the arithmetic is fp32's.
//
// A record holds the state of one (row, head): [accumulator, padded to 16 floats][m][l], where m is the
// largest score, l = Σ exp(score - m) and accumulator = Σ exp(score - m) v, over the keys seen so far.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dspark {

inline constexpr int kTileQueries = 24;  // as many accumulators as leave AVX-512 registers for operands
inline constexpr int kChunkKeys = 256;
inline constexpr int kKeyGroup = 16;  // keys in one vector of scores; blocks are whole groups

inline constexpr size_t RecordMax(int head_dim) {
  return (size_t(head_dim) + 15) / 16 * 16;
}  // index of m; l follows
inline constexpr size_t RecordSize(int head_dim) { return RecordMax(head_dim) + 16; }

// `rows` consecutive rows of one sequence, `heads` query heads of one KV head: query i is row i / heads, head
// i % heads.
struct AttentionChunk {
  int head_dim = 0, block_tokens = 0;
  float scale = 0;
  int rows = 0, heads = 0;   // rows · heads ≤ kTileQueries
  int first_keys = 0;        // ≥ 1: row 0 sees keys 0 … min(first_keys, kChunkKeys) - 1 of the chunk
  int more_keys = 1;         // each later row sees as many more: 1, or 0 where rows see each other
  const float* q = nullptr;  // [head_dim][kTileQueries]
  float* scores = nullptr;   // scratch, [kTileQueries][kChunkKeys]
  float* const* records = nullptr;             // one per query, written
  const void* k[kChunkKeys / kKeyGroup] = {};  // per group of keys: [head_dim] rows `block_tokens` apart
  const void* v[kChunkKeys / kKeyGroup] = {};  // per group of keys: [16][head_dim]

  int Keys(int row) const {
    const int keys = first_keys + row * more_keys;
    return keys < kChunkKeys ? keys : kChunkKeys;
  }
};

struct AttentionTable {
  void (*chunk_f16)(const AttentionChunk& chunk);
  void (*chunk_f32)(const AttentionChunk& chunk);
  void (*merge)(float* record, const float* later, int head_dim);  // record = record ∪ the next chunk's
  void (*finish)(const float* record, int head_dim, float* out);   // accumulator / l
  void (*to_half)(const float* x, int n, uint16_t* h);
};

extern const AttentionTable kAttentionRef;
extern const AttentionTable kAttentionAvx2;
extern const AttentionTable kAttentionAvx512;

}  // namespace dspark

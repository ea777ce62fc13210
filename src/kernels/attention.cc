#include "kernels/attention.h"

#include <algorithm>

#include "core/check.h"
#include "kernels/attention_chunk.h"

namespace dspark {
namespace {

static_assert(kAttentionChunk == kChunkKeys);

const AttentionTable& TableFor(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return kAttentionRef;
    case Isa::kAvx2:
      return kAttentionAvx2;
    case Isa::kAvx512Vnni:
      return kAttentionAvx512;
  }
  CheckFailed(__FILE__, __LINE__, "unknown Isa");
}

int ChunksUpTo(int position) { return position / kChunkKeys + 1; }

int TotalRows(std::span<const AttentionSegment> segments) {
  int rows = 0;
  for (const auto& segment : segments) rows += segment.rows;
  return rows;
}

int MaxChunks(std::span<const AttentionSegment> segments) {
  int chunks = 1;
  for (const auto& segment : segments) {
    if (segment.rows > 0) chunks = std::max(chunks, ChunksUpTo(segment.Keys(segment.rows - 1) - 1));
  }
  return chunks;
}

// Consecutive rows of a segment, consecutive query heads of one KV head, consecutive chunks.
struct Tile {
  const AttentionSegment* segment;
  int first_ordinal;  // rows of the call before this segment
  int row, rows;      // within the segment
  int kv_head, head, heads;
  int chunk_begin, chunk_end;

  // Of query i, counting heads first: its row of the call and its head.
  int Row(int i) const { return segment->first_row + row + i / heads; }
  int Head(int i) const { return head + i % heads; }
  int FirstKeys() const { return segment->Keys(row); }
  int LastKeys() const { return segment->Keys(row + rows - 1); }
  // Keys times rows of one query head, and some for what does not grow with keys.
  int64_t HeadCost() const {
    const int keys = std::min(LastKeys(), chunk_end * kChunkKeys) - chunk_begin * kChunkKeys;
    return int64_t(rows) * (keys + 16);
  }
};

// One call of Attention, as one worker sees it.
struct Call {
  const AttentionTable& table;
  const AttentionShape& shape;
  int layer;
  std::span<const AttentionSegment> segments;
  const float* q;
  size_t q_stride;
  float* out;
  size_t out_stride;
  AttentionWorkspace& workspace;
  float* scratch;  // this worker's
  bool split;      // chunks of one row may be with several workers, and results go through workspace.partials

  int HeadDim() const { return shape.layout.head_dim; }
  size_t Record() const { return RecordSize(HeadDim()); }
  // The parts of scratch: queries [head_dim][kTileQueries], scores [kTileQueries][kChunkKeys], and two
  // records per query, of the chunks so far and of the latest chunk.
  float* PackedQ() const { return scratch; }
  float* Scores() const { return PackedQ() + size_t(kTileQueries) * size_t(HeadDim()); }
  float* Running() const { return Scores() + size_t(kTileQueries) * kChunkKeys; }
  float* Later() const { return Running() + size_t(kTileQueries) * Record(); }

  const float* Query(int row, int head) const {
    return q + size_t(row) * q_stride + size_t(head) * size_t(HeadDim());
  }
  float* Out(int row, int head) const {
    return out + size_t(row) * out_stride + size_t(head) * size_t(HeadDim());
  }
  float* Partial(int ordinal, int head, int chunk) const {
    const size_t row_head = size_t(ordinal) * size_t(shape.heads) + size_t(head);
    return workspace.partials.data() + (row_head * size_t(workspace.max_chunks) + size_t(chunk)) * Record();
  }
};

// Every tile of the call in a fixed order. KV head outermost in a segment: its K and V stay in cache.
template <class F>
void ForEachTile(const Call& call, F f) {
  const KvLayout& layout = call.shape.layout;
  const int group = call.shape.heads / layout.kv_heads;
  const int tile_heads = std::min(group, kTileQueries), tile_rows = kTileQueries / tile_heads;
  int ordinal = 0;
  for (const auto& segment : call.segments) {
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      for (int head = 0; head < group; head += tile_heads) {
        for (int row = 0; row < segment.rows; row += tile_rows) {
          Tile tile = {.segment = &segment,
                       .first_ordinal = ordinal,
                       .row = row,
                       .rows = std::min(tile_rows, segment.rows - row),
                       .kv_head = kv_head,
                       .head = kv_head * group + head,
                       .heads = std::min(tile_heads, group - head),
                       .chunk_begin = 0,
                       .chunk_end = 0};
          const int chunks = ChunksUpTo(tile.LastKeys() - 1);
          const int step = call.split ? 1 : chunks;
          for (tile.chunk_begin = 0; tile.chunk_begin < chunks; tile.chunk_begin += step) {
            tile.chunk_end = tile.chunk_begin + step;
            f(tile);
          }
        }
      }
    }
    ordinal += segment.rows;
  }
}

// Queries transposed, so that the kernel finds the same component of all of them side by side. In a prefill
// neither q nor out is in cache: all their lines are asked for at once, or the misses would cost a tenth of
// the time.
void PackQueries(const Call& call, const Tile& tile) {
  constexpr int kLine = 16;  // floats
  const auto query = [&](int i) { return call.Query(tile.Row(i), tile.Head(i)); };
  for (int i = 0; i < tile.rows * tile.heads; ++i) {
    for (int d = 0; d < call.HeadDim(); d += kLine) {
      __builtin_prefetch(query(i) + d);
      __builtin_prefetch(call.Out(tile.Row(i), tile.Head(i)) + d, 1);
    }
  }
  for (int i = 0; i < tile.rows * tile.heads; ++i) {
    const float* from = query(i);
    for (int d = 0; d < call.HeadDim(); ++d) call.PackedQ()[d * kTileQueries + i] = from[d];
  }
}

// Rows of the tile that see no key of `chunk`: their queries skip it.
int RowsBefore(const Tile& tile, int chunk) {
  const int short_by = chunk * kChunkKeys + 1 - tile.FirstKeys();
  return tile.segment->bidirectional ? 0 : std::clamp(short_by, 0, tile.rows);
}

// One chunk of the tile; records[i] for query i is written where query i sees a key of the chunk.
void RunChunk(const Call& call, const Tile& tile, int chunk, float* const* records) {
  const KvLayout& layout = call.shape.layout;
  const int skipped = RowsBefore(tile, chunk);
  AttentionChunk c;
  c.head_dim = layout.head_dim;
  c.block_tokens = layout.block_tokens;
  c.scale = call.shape.scale;
  c.rows = tile.rows - skipped;
  c.heads = tile.heads;
  c.first_keys = tile.segment->Keys(tile.row + skipped) - chunk * kChunkKeys;
  c.more_keys = tile.segment->bidirectional ? 0 : 1;
  c.q = call.PackedQ() + skipped * tile.heads;
  c.scores = call.Scores();
  c.records = records + skipped * tile.heads;
  for (int key = 0; key < c.Keys(c.rows - 1); key += kKeyGroup) {
    const int position = chunk * kChunkKeys + key;
    const std::byte* block = tile.segment->blocks[size_t(position / layout.block_tokens)];
    const size_t in_block = size_t(position % layout.block_tokens);
    const size_t k = layout.KOffset(call.layer, tile.kv_head) + in_block;
    const size_t v = layout.VOffset(call.layer, tile.kv_head) + in_block * size_t(layout.head_dim);
    c.k[key / kKeyGroup] = block + k * KvElementBytes(layout.type);
    c.v[key / kKeyGroup] = block + v * KvElementBytes(layout.type);
  }
  layout.type == KvType::kF32 ? call.table.chunk_f32(c) : call.table.chunk_f16(c);
}

// The tile's one chunk, into the workspace.
void RunSplitTile(const Call& call, const Tile& tile) {
  float* records[kTileQueries];
  for (int i = 0; i < tile.rows * tile.heads; ++i) {
    const int ordinal = tile.first_ordinal + tile.row + i / tile.heads;
    records[i] = call.Partial(ordinal, tile.Head(i), tile.chunk_begin);
  }
  RunChunk(call, tile, tile.chunk_begin, records);
}

// All chunks of the tile one after the other, merged on the way: the same arithmetic as MergeShare's.
void RunWholeTile(const Call& call, const Tile& tile) {
  const int queries = tile.rows * tile.heads;
  float *running[kTileQueries], *later[kTileQueries];
  for (int i = 0; i < queries; ++i) {
    running[i] = call.Running() + size_t(i) * call.Record();
    later[i] = call.Later() + size_t(i) * call.Record();
  }
  RunChunk(call, tile, 0, running);
  for (int chunk = 1; chunk < tile.chunk_end; ++chunk) {
    RunChunk(call, tile, chunk, later);
    for (int i = RowsBefore(tile, chunk) * tile.heads; i < queries; ++i) {
      call.table.merge(running[i], later[i], call.HeadDim());
    }
  }
  for (int i = 0; i < queries; ++i) {
    call.table.finish(running[i], call.HeadDim(), call.Out(tile.Row(i), tile.Head(i)));
  }
}

// This worker's contiguous share of all tiles, by cost. A tile on the border is cut between query heads.
void RunShare(const Call& call, const Worker& worker) {
  int64_t total = 0;
  ForEachTile(call, [&](const Tile& tile) { total += tile.HeadCost() * tile.heads; });
  const int64_t begin = total * worker.index() / worker.count();
  const int64_t end = total * (worker.index() + 1) / worker.count();
  int64_t start = 0;
  ForEachTile(call, [&](Tile tile) {
    const int64_t cost = tile.HeadCost();
    const auto first_head_from = [&](int64_t limit) {
      return int(std::clamp<int64_t>((limit - start + cost - 1) / cost, 0, tile.heads));
    };
    const int from = first_head_from(begin), to = first_head_from(end);
    start += cost * tile.heads;
    if (from == to) return;
    tile.head += from;
    tile.heads = to - from;
    PackQueries(call, tile);
    call.split ? RunSplitTile(call, tile) : RunWholeTile(call, tile);
  });
}

// Merges the chunks of this worker's share of (row, head) in order and writes them out.
void MergeShare(const Call& call, const Worker& worker) {
  const int heads = call.shape.heads;
  const Range share = worker.Share(TotalRows(call.segments) * heads);
  int ordinal = 0;
  for (const auto& segment : call.segments) {
    const int begin = std::max(share.begin, ordinal * heads);
    const int end = std::min(share.end, (ordinal + segment.rows) * heads);
    for (int i = begin; i < end; ++i) {
      const int row = i / heads - ordinal, head = i % heads;
      float* record = call.Partial(i / heads, head, 0);
      for (int chunk = 1; chunk < ChunksUpTo(segment.Keys(row) - 1); ++chunk) {
        call.table.merge(record, call.Partial(i / heads, head, chunk), call.HeadDim());
      }
      call.table.finish(record, call.HeadDim(), call.Out(segment.first_row + row, head));
    }
    ordinal += segment.rows;
  }
}

void Convert(const AttentionTable& table, const float* x, int n, uint16_t* to) { table.to_half(x, n, to); }
void Convert(const AttentionTable&, const float* x, int n, float* to) { std::copy_n(x, n, to); }

template <class T>
void StoreKvAs(const Worker& worker, const KvLayout& layout, int layer,
               std::span<const AttentionSegment> segments, const float* k, const float* v, size_t stride) {
  const AttentionTable& table = TableFor(worker.isa());
  const int rows = TotalRows(segments), head_dim = layout.head_dim, tokens = layout.block_tokens;
  constexpr int kPiece = 64;  // values converted at once
  // KV head outermost: neighbouring positions share cache lines of K, so few of these are shared between
  // workers.
  const Range share = worker.Share(rows * layout.kv_heads);
  for (int head = 0; head < layout.kv_heads; ++head) {
    int ordinal = head * rows;
    for (const auto& segment : segments) {
      const int begin = std::max(share.begin - ordinal, 0), end = std::min(share.end - ordinal, segment.rows);
      for (int i = begin; i < end; ++i) {
        const int position = segment.first_position + i;
        T* block = reinterpret_cast<T*>(segment.blocks[size_t(position / tokens)]);
        const size_t from = size_t(segment.first_row + i) * stride + size_t(head) * size_t(head_dim);
        Convert(table, v + from, head_dim,
                block + layout.VOffset(layer, head) + size_t(position % tokens * head_dim));
        T* k_column = block + layout.KOffset(layer, head) + position % tokens;
        for (int d = 0; d < head_dim; d += kPiece) {
          T piece[kPiece];
          const int n = std::min(kPiece, head_dim - d);
          Convert(table, k + from + d, n, piece);
          for (int j = 0; j < n; ++j) k_column[(d + j) * tokens] = piece[j];
        }
      }
      ordinal += segment.rows;
    }
  }
}

// Fields of AttentionWorkspace; scratch and partials in floats.
struct WorkspaceSizes {
  int max_chunks = 0, split_rows = 0;
  size_t scratch_per_worker = 0, partials = 0;
};

WorkspaceSizes SizesFor(const AttentionShape& shape, int max_rows, int max_context, int workers) {
  const size_t head_dim = size_t(shape.layout.head_dim), record = RecordSize(shape.layout.head_dim);
  WorkspaceSizes sizes;
  sizes.max_chunks = ChunksUpTo(std::max(max_context, 1) - 1);
  // More rows than these keep all workers busy without sharing out one row's context.
  if (workers > 1 && sizes.max_chunks > 1) sizes.split_rows = std::min(max_rows, std::max(16, 4 * workers));
  sizes.scratch_per_worker = size_t(kTileQueries) * (head_dim + kChunkKeys + 2 * record);
  sizes.partials = size_t(sizes.split_rows) * size_t(shape.heads) * size_t(sizes.max_chunks) * record;
  return sizes;
}

}  // namespace

AttentionWorkspace::AttentionWorkspace(const AttentionShape& shape, int max_rows, int max_context,
                                       int workers) {
  const WorkspaceSizes sizes = SizesFor(shape, max_rows, max_context, workers);
  max_chunks = sizes.max_chunks;
  split_rows = sizes.split_rows;
  scratch_per_worker = sizes.scratch_per_worker;
  scratch = Buffer<float>(scratch_per_worker * size_t(workers));
  partials = Buffer<float>(sizes.partials);
}

size_t AttentionWorkspace::BytesFor(const AttentionShape& shape, int max_rows, int max_context, int workers) {
  const WorkspaceSizes sizes = SizesFor(shape, max_rows, max_context, workers);
  return (sizes.scratch_per_worker * size_t(workers) + sizes.partials) * sizeof(float);
}

void Attention(Worker& worker, const AttentionShape& shape, int layer,
               std::span<const AttentionSegment> segments, const float* q, size_t q_stride, float* out,
               size_t out_stride, AttentionWorkspace& workspace) {
  DSPARK_CHECK_EQ(kChunkKeys % shape.layout.block_tokens, 0);
  DSPARK_CHECK_EQ(shape.layout.block_tokens % kKeyGroup, 0);
  DSPARK_CHECK_EQ(shape.heads % shape.layout.kv_heads, 0);
  DSPARK_CHECK_LE(size_t(worker.count()) * workspace.scratch_per_worker, workspace.scratch.size());
  const int chunks = MaxChunks(segments);
  const bool split = worker.count() > 1 && chunks > 1 && TotalRows(segments) <= workspace.split_rows;
  if (split) DSPARK_CHECK_LE(chunks, workspace.max_chunks);

  float* scratch = workspace.scratch.data() + size_t(worker.index()) * workspace.scratch_per_worker;
  const Call call = {TableFor(worker.isa()),
                     shape,
                     layer,
                     segments,
                     q,
                     q_stride,
                     out,
                     out_stride,
                     workspace,
                     scratch,
                     split};
  RunShare(call, worker);
  if (split) {
    worker.Barrier();
    MergeShare(call, worker);
  }
}

void StoreKv(const Worker& worker, const KvLayout& layout, int layer,
             std::span<const AttentionSegment> segments, const float* k, const float* v, size_t stride) {
  layout.type == KvType::kF32 ? StoreKvAs<float>(worker, layout, layer, segments, k, v, stride)
                              : StoreKvAs<uint16_t>(worker, layout, layer, segments, k, v, stride);
}

}  // namespace dspark

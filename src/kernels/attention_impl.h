// A chunk of attention over a vector class of simd.h; attention_ref.cc is the plain definition it must equal
// bit for bit.
//
// Scores: a vector of 16 keys is loaded and converted once per dimension and serves all queries of a register
// block. Values: a vector of 16 dimensions of one key serves up to 6 queries. Register blocks only decide
// which independent sums are computed side by side, never the order within one.
#pragma once

#include "kernels/attention_chunk.h"
#include "kernels/simd.h"

namespace dspark {

// `Accumulators`: vectors of sums that fit the registers beside operands.
template <class V, int Accumulators>
class AttentionOf {
 public:
  // `T`: the elements of K and V, uint16_t (fp16) or float.
  template <class T>
  static void Chunk(const AttentionChunk& c) {
    const int queries = c.rows * c.heads;
    const size_t max_at = RecordMax(c.head_dim);
    Scores<T, Accumulators>(c, 0, queries, (c.Keys(c.rows - 1) + kKeyGroup - 1) / kKeyGroup);
    for (int i = 0; i < queries; ++i) {
      for (size_t d = 0; d < max_at; d += 16) V::Set(0).Store(c.records[i] + d);
      Weights(c.scores + size_t(i) * kChunkKeys, c.Keys(i / c.heads), c.records[i] + max_at);
    }
    // The keys all rows see, then what each row sees beyond: no row ever multiplies by a value of its future.
    const int common = c.Keys(0);
    Values<T>(c, 0, queries, 0, common);
    for (int r = 1; r < c.rows; ++r) Values<T>(c, r * c.heads, c.heads, common, c.Keys(r));
  }

  static void Merge(float* record, const float* later, int head_dim) {
    const size_t max_at = RecordMax(head_dim);
    const V old_max = V::Set(record[max_at]), later_max = V::Set(later[max_at]);
    const V max = V::Max(old_max, later_max);
    const V a = Exp(old_max - max), b = Exp(later_max - max);
    for (size_t d = 0; d < max_at; d += 16) {
      V::Fma(V::Load(later + d), b, V::Load(record + d) * a).Store(record + d);
    }
    record[max_at] = max.First();
    record[max_at + 1] = V::Fma(V::Set(later[max_at + 1]), b, V::Set(record[max_at + 1]) * a).First();
  }

  static void Finish(const float* record, int head_dim, float* out) {
    const V inverse = V::Set(1) / V::Set(record[RecordMax(head_dim) + 1]);
    int d = 0;
    for (; d + 16 <= head_dim; d += 16) (V::Load(record + d) * inverse).Store(out + d);
    if (d < head_dim) (V::Load(record + d) * inverse).StoreFirst(out + d, head_dim - d);
  }

  static void ToHalf(const float* x, int n, uint16_t* h) {
    int i = 0;
    for (; i + 16 <= n; i += 16) V::Load(x + i).StoreHalf(h + i);
    if (i < n) {
      alignas(32) uint16_t last[16];
      V::LoadFirst(x + i, n - i, 0).StoreHalf(last);
      for (int j = 0; i + j < n; ++j) h[i + j] = last[j];
    }
  }

  static constexpr AttentionTable Table() { return {Chunk<uint16_t>, Chunk<float>, Merge, Finish, ToHalf}; }

 private:
  static V LoadKv(const uint16_t* p) { return V::LoadHalf(p); }
  static V LoadKv(const float* p) { return V::Load(p); }
  static V LoadKvFirst(const uint16_t* p, int n) { return V::LoadHalfFirst(p, n); }
  static V LoadKvFirst(const float* p, int n) { return V::LoadFirst(p, n, 0); }

  // Block sizes: 24, 16, 12, 8, 6, 4, 3, 2, 1 queries, beside as many vectors (at most 4) as registers allow.
  static constexpr int Smaller(int queries) {
    return queries > 16   ? 16
           : queries > 12 ? 12
           : queries > 8  ? 8
           : queries > 6  ? 6
           : queries > 4  ? 4
                          : queries - 1;
  }
  static constexpr int Beside(int queries) {
    return Accumulators / queries >= 4 ? 4 : Accumulators / queries >= 2 ? 2 : 1;
  }

  template <class T, int Q>
  static void Scores(const AttentionChunk& c, int query, int queries, int groups) {
    for (; queries >= Q; query += Q, queries -= Q) {
      int group = 0;
      for (; group + Beside(Q) <= groups; group += Beside(Q)) ScoreBlock<T, Q, Beside(Q)>(c, query, group);
      for (; group < groups; ++group) ScoreBlock<T, Q, 1>(c, query, group);
    }
    if constexpr (Q > 1) {
      if (queries > 0) Scores<T, Smaller(Q)>(c, query, queries, groups);
    }
  }

  // scores of queries [query, query + Q) and keys [16 group, 16 (group + G)).
  template <class T, int Q, int G>
  static void ScoreBlock(const AttentionChunk& c, int query, int group) {
    V sum[Q][G];
#pragma GCC unroll 24
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) sum[i][g] = V::Set(0);
    }
    const T* keys[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) keys[g] = static_cast<const T*>(c.k[group + g]);
    const float* q = c.q + query;
    const size_t stride = size_t(c.block_tokens);
    for (int d = c.head_dim; d > 0; --d, q += kTileQueries) {
      V key[G];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        key[g] = LoadKv(keys[g]);
        keys[g] += stride;
      }
#pragma GCC unroll 24
      for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) sum[i][g] = V::Fma(V::Set(q[i]), key[g], sum[i][g]);
      }
    }
    float* to = c.scores + size_t(query) * kChunkKeys + size_t(group) * kKeyGroup;
#pragma GCC unroll 24
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) (sum[i][g] * V::Set(c.scale)).Store(to + i * kChunkKeys + g * kKeyGroup);
    }
  }

  // Turns the first `keys` scores into exp(score - m); max_and_sum = {m, l}. Lanes past `keys` are cut by
  // selection, so whatever lies there (keys of the future, memory never written) has no say.
  static void Weights(float* scores, int keys, float* max_and_sum) {
    const V lowest = V::Set(-__builtin_inff());
    const int full = keys / 16 * 16;
    const V last = full < keys ? V::KeepFirst(V::Load(scores + full), keys - full, lowest) : lowest;
    V most = lowest;
    for (int j = 0; j < full; j += 16) most = V::Max(V::Load(scores + j), most);
    const float max = V::Max(last, most).MaxOfLanes();
    V sum = V::Set(0);
    for (int j = 0; j < full; j += 16) {
      const V e = Exp(V::Load(scores + j) - V::Set(max));
      e.Store(scores + j);
      sum = sum + e;
    }
    if (full < keys) {
      const V e = Exp(last - V::Set(max));
      e.Store(scores + full);
      sum = sum + e;
    }
    max_and_sum[0] = max;
    max_and_sum[1] = sum.SumOfLanes();
  }

  // accumulator += Σ weight[j] v[j] for keys [begin, end), in order.
  template <class T>
  static void Values(const AttentionChunk& c, int query, int queries, int begin, int end) {
    if (begin < end) ValueQueries<T, 6>(c, query, queries, begin, end);
  }

  template <class T, int Q>
  static void ValueQueries(const AttentionChunk& c, int query, int queries, int begin, int end) {
    for (; queries >= Q; query += Q, queries -= Q) {
      int d = 0;
      for (; d + 16 * Beside(Q) <= c.head_dim; d += 16 * Beside(Q)) {
        ValueBlock<T, Q, Beside(Q)>(c, query, d, 16, begin, end);
      }
      for (; d + 16 <= c.head_dim; d += 16) ValueBlock<T, Q, 1>(c, query, d, 16, begin, end);
      if (d < c.head_dim) ValueBlock<T, Q, 1>(c, query, d, c.head_dim - d, begin, end);
    }
    if constexpr (Q > 1) {
      if (queries > 0) ValueQueries<T, Smaller(Q)>(c, query, queries, begin, end);
    }
  }

  // D vectors of dimensions from d; `lanes` < 16 only in the last vector of an odd head_dim.
  template <class T, int Q, int D>
  static void ValueBlock(const AttentionChunk& c, int query, int d, int lanes, int begin, int end) {
    V sum[Q][D];
#pragma GCC unroll 6
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
      for (int n = 0; n < D; ++n) sum[i][n] = V::Load(c.records[query + i] + d + 16 * n);
    }
    const float* weights = c.scores + size_t(query) * kChunkKeys;
    for (int j = begin; j < end;) {
      const T* v = static_cast<const T*>(c.v[j / kKeyGroup]) + size_t(j % kKeyGroup) * size_t(c.head_dim) + d;
      const int stop = (j / kKeyGroup + 1) * kKeyGroup < end ? (j / kKeyGroup + 1) * kKeyGroup : end;
      for (; j < stop; ++j, v += c.head_dim) {
        V value[D];
#pragma GCC unroll 4
        for (int n = 0; n < D; ++n) {
          value[n] = D > 1 || lanes == 16 ? LoadKv(v + 16 * n) : LoadKvFirst(v, lanes);
        }
#pragma GCC unroll 6
        for (int i = 0; i < Q; ++i) {
          const V weight = V::Set(weights[i * kChunkKeys + j]);
#pragma GCC unroll 4
          for (int n = 0; n < D; ++n) sum[i][n] = V::Fma(weight, value[n], sum[i][n]);
        }
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
      for (int n = 0; n < D; ++n) sum[i][n].Store(c.records[query + i] + d + 16 * n);
    }
  }
};

}  // namespace dspark

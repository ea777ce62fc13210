// The definition of attention's arithmetic, one query at a time. Every instruction set gives these bits.
#include <cmath>

#include "core/float16.h"
#include "kernels/attention_chunk.h"
#include "kernels/simd.h"

namespace dspark {
namespace {

float ExpRef(float x) { return Exp(VecRef::Set(x)).First(); }

float Float(uint16_t half) { return HalfToFloat(half); }
float Float(float x) { return x; }

template <class T>
float Score(const AttentionChunk& c, int query, int key) {
  const T* k = static_cast<const T*>(c.k[key / kKeyGroup]) + key % kKeyGroup;
  float sum = 0;
  for (int d = 0; d < c.head_dim; ++d) {
    sum = std::fma(c.q[d * kTileQueries + query], Float(k[d * c.block_tokens]), sum);
  }
  return sum * c.scale;
}

template <class T>
void QueryChunk(const AttentionChunk& c, int query) {
  float* record = c.records[query];
  float* weights = c.scores + query * kChunkKeys;
  const int keys = c.Keys(query / c.heads);

  float max = -INFINITY;
  for (int j = 0; j < keys; ++j) {
    weights[j] = Score<T>(c, query, j);
    if (weights[j] > max) max = weights[j];
  }
  VecRef sum_exp = VecRef::Set(0);  // in 16 lanes, key j in lane j mod 16
  for (int j = 0; j < keys; j += 16) {
    const VecRef e = Exp(VecRef::LoadFirst(weights + j, keys - j, -INFINITY) - VecRef::Set(max));
    e.Store(weights + j);
    sum_exp = sum_exp + e;
  }
  for (int d = 0; d < c.head_dim; ++d) {
    float sum = 0;
    for (int j = 0; j < keys; ++j) {
      const T* v = static_cast<const T*>(c.v[j / kKeyGroup]) + j % kKeyGroup * c.head_dim;
      sum = std::fma(weights[j], Float(v[d]), sum);
    }
    record[d] = sum;
  }
  record[RecordMax(c.head_dim)] = max;
  record[RecordMax(c.head_dim) + 1] = sum_exp.SumOfLanes();
}

template <class T>
void ChunkRef(const AttentionChunk& c) {
  for (int query = 0; query < c.rows * c.heads; ++query) QueryChunk<T>(c, query);
}

void MergeRef(float* record, const float* later, int head_dim) {
  float *max = record + RecordMax(head_dim), *sum = max + 1;
  const float later_max = later[RecordMax(head_dim)], later_sum = later[RecordMax(head_dim) + 1];
  const float new_max = *max > later_max ? *max : later_max;
  const float a = ExpRef(*max - new_max), b = ExpRef(later_max - new_max);
  for (int d = 0; d < head_dim; ++d) record[d] = std::fma(later[d], b, record[d] * a);
  *max = new_max;
  *sum = std::fma(later_sum, b, *sum * a);
}

void FinishRef(const float* record, int head_dim, float* out) {
  const float inverse = 1.0f / record[RecordMax(head_dim) + 1];
  for (int d = 0; d < head_dim; ++d) out[d] = record[d] * inverse;
}

void ToHalfRef(const float* x, int n, uint16_t* h) {
  for (int i = 0; i < n; ++i) h[i] = FloatToHalf(x[i]);
}

}  // namespace

constinit const AttentionTable kAttentionRef = {ChunkRef<uint16_t>, ChunkRef<float>, MergeRef, FinishRef,
                                                ToHalfRef};

}  // namespace dspark

// AVX2 kernels on the layout of matmul_kernels.h: a group's 16 rows as two halves of 8 lanes.
//
// Without VNNI a dot product goes through vpmaddubsw, which saturates at 16 bits. Levels of 4 bits cannot get
// there: the 8 pairs of products of a block sum to at most 8 * 2 * 15 * 128 = 30720, so they are added in 16
// bits and widened once per block. Levels of 8 bits are split into two such nibbles.
#include <immintrin.h>

#include <cfloat>
#include <cstring>
#include <limits>

#include "kernels/matmul_kernels.h"

namespace dspark {
namespace {

constexpr int kTileRows = 4;
constexpr int kHalf = 8;  // lanes

template <class T>
T Load(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

__m256i LoadLevels(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

__m256 LoadHalves(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

// Writes 8 columns from `column` of the tile's rows; the columns beyond n do not exist in y.
template <int kRows>
[[gnu::always_inline]] inline void StoreTile(const MatMulTask& task, int column, int row, const __m256* acc) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(task.n - column), lane);
  float* y = task.y + row * task.y_stride + column;
  const bool add = task.store == Store::kAdd;
  for (int m = 0; m < kRows; ++m, y += task.y_stride) {
    _mm256_maskstore_ps(y, mask, add ? _mm256_add_ps(_mm256_maskload_ps(y, mask), acc[m]) : acc[m]);
  }
}

// sum[m] += pairs of nibble · activation products of unit `unit`, in 16 bits.
template <int kRows>
[[gnu::always_inline]] inline void DotUnit(__m256i nibbles, const uint8_t* x, size_t x_stride, int unit,
                                           __m256i* sum) {
  for (int m = 0; m < kRows; ++m) {
    const __m256i a = _mm256_set1_epi32(Load<int32_t>(x + m * x_stride + unit * 4));
    sum[m] = _mm256_add_epi16(sum[m], _mm256_maddubs_epi16(nibbles, a));
  }
}

// The exact int32 dot products of unsigned levels and activations of one block.
template <WeightFormat kFormat, int kRows>
[[gnu::always_inline]] inline void DotBlock(const uint8_t* levels, const uint8_t* x, size_t x_stride,
                                            __m256i* dot) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i sum[kRows], high[kRows];
  for (int m = 0; m < kRows; ++m) sum[m] = high[m] = _mm256_setzero_si256();
  if constexpr (kFormat == WeightFormat::kInt8) {
    for (int unit = 0; unit < 8; ++unit) {
      const __m256i w = LoadLevels(levels + unit * 64);
      DotUnit<kRows>(_mm256_and_si256(w, low), x, x_stride, unit, sum);
      DotUnit<kRows>(_mm256_and_si256(_mm256_srli_epi16(w, 4), low), x, x_stride, unit, high);
    }
  } else {
    for (int unit = 0; unit < 4; ++unit) {
      const __m256i w = LoadLevels(levels + unit * 64);
      DotUnit<kRows>(_mm256_and_si256(w, low), x, x_stride, unit, sum);
      DotUnit<kRows>(_mm256_and_si256(_mm256_srli_epi16(w, 4), low), x, x_stride, unit + 4, sum);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    dot[m] = _mm256_madd_epi16(sum[m], ones);
    if constexpr (kFormat == WeightFormat::kInt8) {
      dot[m] = _mm256_add_epi32(dot[m], _mm256_slli_epi32(_mm256_madd_epi16(high[m], ones), 4));
    }
  }
}

// -zero * Σ activations.
template <WeightFormat kFormat>
[[gnu::always_inline]] inline __m256i AddOffset(__m256i dot, const uint8_t* block) {
  if constexpr (kFormat == WeightFormat::kInt4Min) return dot;
  constexpr size_t kOffset = kFormat == WeightFormat::kInt8 ? offsetof(QuantizedBlock, offset_128)
                                                            : offsetof(QuantizedBlock, offset_8);
  return _mm256_add_epi32(dot, _mm256_set1_epi32(Load<int32_t>(block + kOffset)));
}

template <WeightFormat kFormat, int kRows>
void QuantizedHalf(const MatMulTask& task, int group, int half, int row) {
  using Layout = QuantizedLayout<kFormat>;
  const int blocks = task.k / kBlockSize;
  const uint8_t* base = task.groups + group * task.group_bytes;
  const uint8_t* levels = base + half * 32;
  const uint8_t* scales = base + blocks * Layout::kLevelBytes + half * 16;
  const uint8_t* x = reinterpret_cast<const uint8_t*>(task.quantized + row * task.quantized_stride);
  const size_t x_stride = task.quantized_stride * sizeof(QuantizedBlock);
  __m256 acc[kRows];
  for (int m = 0; m < kRows; ++m) acc[m] = _mm256_setzero_ps();
  for (int b = 0; b < blocks; ++b) {
    __m256i dot[kRows];
    DotBlock<kFormat, kRows>(levels, x, x_stride, dot);
    const __m256 scale = LoadHalves(scales);
    for (int m = 0; m < kRows; ++m) {
      const uint8_t* block = x + m * x_stride;
      const __m256 scales_product =
          _mm256_mul_ps(scale, _mm256_set1_ps(Load<float>(block + offsetof(QuantizedBlock, scale))));
      acc[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(AddOffset<kFormat>(dot[m], block)), scales_product, acc[m]);
      if constexpr (Layout::kHasMin) {
        const __m256 x_sum = _mm256_set1_ps(Load<float>(block + offsetof(QuantizedBlock, scaled_sum)));
        acc[m] = _mm256_fmadd_ps(LoadHalves(scales + 32), x_sum, acc[m]);
      }
    }
    levels += Layout::kLevelBytes;
    scales += Layout::kScaleBytes;
    x += sizeof(QuantizedBlock);
  }
  StoreTile<kRows>(task, group * kGroupRows + half * kHalf, row, acc);
}

// Elements [i, i + 8) of a group.
template <WeightFormat kFormat>
[[gnu::always_inline]] inline __m256 LoadElements(const uint8_t* group, size_t i) {
  if constexpr (kFormat == WeightFormat::kF32)
    return _mm256_load_ps(reinterpret_cast<const float*>(group) + i);
  if constexpr (kFormat == WeightFormat::kF16) return LoadHalves(group + i * 2);
  const __m128i bits = _mm_load_si128(reinterpret_cast<const __m128i*>(group + i * 2));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

template <WeightFormat kFormat, int kRows>
void FloatTile(const MatMulTask& task, int group, int row) {
  const uint8_t* weights = task.groups + group * task.group_bytes;
  const float* x = task.values + row * task.values_stride;
  __m256 left[kRows], right[kRows];
  for (int m = 0; m < kRows; ++m) left[m] = right[m] = _mm256_setzero_ps();
  for (int k = 0; k < task.k; ++k) {
    const __m256 w0 = LoadElements<kFormat>(weights, size_t(k) * kGroupRows);
    const __m256 w1 = LoadElements<kFormat>(weights, size_t(k) * kGroupRows + kHalf);
    for (int m = 0; m < kRows; ++m) {
      const __m256 a = _mm256_set1_ps(x[m * task.values_stride + k]);
      left[m] = _mm256_fmadd_ps(w0, a, left[m]);
      right[m] = _mm256_fmadd_ps(w1, a, right[m]);
    }
  }
  StoreTile<kRows>(task, group * kGroupRows, row, left);
  StoreTile<kRows>(task, group * kGroupRows + kHalf, row, right);
}

template <WeightFormat kFormat, int kRows>
void Tile(const MatMulTask& task, int group, int row) {
  if constexpr (IsQuantized(kFormat)) {
    QuantizedHalf<kFormat, kRows>(task, group, 0, row);
    QuantizedHalf<kFormat, kRows>(task, group, 1, row);
  } else {
    FloatTile<kFormat, kRows>(task, group, row);
  }
}

template <WeightFormat kFormat>
void Run(const MatMulTask& task) {
  using TileFunction = void (*)(const MatMulTask&, int, int);
  static constexpr TileFunction kTiles[kTileRows] = {Tile<kFormat, 1>, Tile<kFormat, 2>, Tile<kFormat, 3>,
                                                     Tile<kFormat, 4>};
  ForEachTile<kTileRows>(task, [&](int group, int row, int count) { kTiles[count - 1](task, group, row); });
}

}  // namespace

void MatMulAvx2(const MatMulTask& task) {
  switch (task.format) {
    case WeightFormat::kF32:
      return Run<WeightFormat::kF32>(task);
    case WeightFormat::kF16:
      return Run<WeightFormat::kF16>(task);
    case WeightFormat::kBf16:
      return Run<WeightFormat::kBf16>(task);
    case WeightFormat::kInt8:
      return Run<WeightFormat::kInt8>(task);
    case WeightFormat::kInt4:
      return Run<WeightFormat::kInt4>(task);
    case WeightFormat::kInt4Min:
      return Run<WeightFormat::kInt4Min>(task);
  }
}

namespace {

int ReduceAdd(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// The largest of unsigned integers, as the float with those bits.
float ReduceMaxBits(__m256i v) {
  __m128i s = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1))));
}

}  // namespace

void QuantizeAvx2(const float* x, int blocks, QuantizedBlock* out) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int b = 0; b < blocks; ++b, x += kBlockSize) {
    __m256i amax = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      amax = _mm256_max_epu32(amax,
                              _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i * 8)), magnitude));
    }
    const float scale = ReduceMaxBits(amax) / 127;
    if (!(scale >= FLT_MIN && scale <= FLT_MAX)) {
      std::memset(&out[b], 0, sizeof(out[b]));
      if (!(scale <= FLT_MAX)) out[b].scale = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    const __m256 inverse = _mm256_set1_ps(1 / scale);
    __m256i a[4];
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i * 8), inverse));
    }
    const int sum = ReduceAdd(_mm256_add_epi32(_mm256_add_epi32(a[0], a[1]), _mm256_add_epi32(a[2], a[3])));
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a[0], a[1]), _mm256_packs_epi32(a[2], a[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packs work within 128-bit lanes
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[b].level), _mm256_permutevar8x32_epi32(packed, order));
    out[b].scale = scale;
    out[b].scaled_sum = scale * float(sum);
    out[b].offset_128 = -128 * sum;
    out[b].offset_8 = -8 * sum;
  }
}

}  // namespace dspark

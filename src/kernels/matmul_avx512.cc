// AVX-512 VNNI kernels. One vpdpbusd multiplies 4 unsigned levels of each of 16 weight rows by 4 broadcast
// activations; the zero of the levels costs nothing: the integer accumulator starts at -zero * Σ activations.
//
// Zen 4 issues one 512-bit dot product or FMA per cycle. A block of a row needs 8 dots, the product of the
// scales and one or two FMAs, so 8/11 (with a min) or 8/10 of the dot peak is the limit; unpacking and
// conversions run beside on the other pipes. A tile of 8 rows × 16 columns comes within a few per cent of it.

// GCC 12 takes the _mm512_undefined_* of its own header for a mistake (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstring>

#include "kernels/matmul_kernels.h"

namespace dspark {
namespace {

constexpr int kTileRows = 8;

// How far ahead of its use a group's data is asked for: about a microsecond of one core's share of memory.
constexpr size_t kPrefetchBytes = 16384;

// Asks for what this worker reads kPrefetchBytes later: the rest of its share, then its share of the next
// matrix. Into L2: L1 belongs to the activations and the hardware's own streams.
class Prefetcher {
 public:
  Prefetcher(const MatMulTask& task, const uint8_t* now)
      : ahead_(now + kPrefetchBytes), next_(task.next_share), left_(task.share_end - ahead_) {
    if (left_ <= 0) MoveOn();
  }
  template <int kBytes>
  void Ask() {
    for (int line = 0; line < kBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead_ + line), _MM_HINT_T1);
    }
    ahead_ += kBytes;
    left_ -= kBytes;
    if (left_ <= 0) MoveOn();
  }

 private:
  void MoveOn() {
    ahead_ = next_ - left_;
    left_ = PTRDIFF_MAX;
  }
  const uint8_t *ahead_, *next_;
  ptrdiff_t left_;  // of the share
};

template <class T>
T Load(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

__m512 LoadHalves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

// Writes 16 columns of the tile's rows; the columns beyond n do not exist in y.
template <int kRows>
[[gnu::always_inline]] inline void StoreTile(const MatMulTask& task, int group, int row, const __m512* acc) {
  const int columns = task.n - group * kGroupRows;
  const __mmask16 mask = columns >= kGroupRows ? 0xffff : __mmask16((1 << columns) - 1);
  float* y = task.y + row * task.y_stride + group * kGroupRows;
  const bool add = task.store == Store::kAdd;
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m, y += task.y_stride) {
    _mm512_mask_storeu_ps(y, mask, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), acc[m]) : acc[m]);
  }
}

// dot[m] += levels of unit `unit` · activations, for all rows of the tile.
template <int kRows>
[[gnu::always_inline]] inline void DotUnit(__m512i weights, const uint8_t* x, size_t x_stride, int unit,
                                           __m512i* dot) {
  for (int m = 0; m < kRows; ++m) {
    const __m512i a = _mm512_set1_epi32(Load<int32_t>(x + m * x_stride + unit * 4));
    dot[m] = _mm512_dpbusd_epi32(dot[m], weights, a);
  }
}

template <WeightFormat kFormat, int kRows>
[[gnu::always_inline]] inline void DotBlock(const uint8_t* levels, const uint8_t* x, size_t x_stride,
                                            __m512i* dot) {
  if constexpr (kFormat == WeightFormat::kInt8) {
#pragma GCC unroll 8
    for (int unit = 0; unit < 8; ++unit) {
      DotUnit<kRows>(_mm512_load_si512(levels + unit * 64), x, x_stride, unit, dot);
    }
  } else {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int unit = 0; unit < 4; ++unit) {
      const __m512i packed = _mm512_load_si512(levels + unit * 64);
      DotUnit<kRows>(_mm512_and_si512(packed, low), x, x_stride, unit, dot);
      DotUnit<kRows>(_mm512_and_si512(_mm512_srli_epi16(packed, 4), low), x, x_stride, unit + 4, dot);
    }
  }
}

template <WeightFormat kFormat>
[[gnu::always_inline]] inline __m512i StartOfDot(const uint8_t* block) {
  if constexpr (kFormat == WeightFormat::kInt8) {
    return _mm512_set1_epi32(Load<int32_t>(block + offsetof(QuantizedBlock, offset_128)));
  } else if constexpr (kFormat == WeightFormat::kInt4) {
    return _mm512_set1_epi32(Load<int32_t>(block + offsetof(QuantizedBlock, offset_8)));
  }
  return _mm512_setzero_si512();
}

template <WeightFormat kFormat, int kRows>
void QuantizedTile(const MatMulTask& task, int group, int row) {
  using Layout = QuantizedLayout<kFormat>;
  const int blocks = task.k / kBlockSize;
  const uint8_t* levels = task.groups + group * task.group_bytes;
  const uint8_t* scales = levels + blocks * Layout::kLevelBytes;
  Prefetcher prefetcher(task, levels);
  const uint8_t* x = reinterpret_cast<const uint8_t*>(task.quantized + row * task.quantized_stride);
  const size_t x_stride = task.quantized_stride * sizeof(QuantizedBlock);
  __m512 acc[kRows];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) acc[m] = _mm512_setzero_ps();
  for (int b = 0; b < blocks; ++b) {
    prefetcher.template Ask<Layout::kLevelBytes + Layout::kScaleBytes>();
    __m512i dot[kRows];
    for (int m = 0; m < kRows; ++m) dot[m] = StartOfDot<kFormat>(x + m * x_stride);
    DotBlock<kFormat, kRows>(levels, x, x_stride, dot);
    const __m512 scale = LoadHalves(scales);
    for (int m = 0; m < kRows; ++m) {
      const uint8_t* block = x + m * x_stride;
      const __m512 x_scale = _mm512_set1_ps(Load<float>(block + offsetof(QuantizedBlock, scale)));
      acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m]), _mm512_mul_ps(scale, x_scale), acc[m]);
    }
    if constexpr (Layout::kHasMin) {
      const __m512 min = LoadHalves(scales + 32);
      for (int m = 0; m < kRows; ++m) {
        const float x_sum = Load<float>(x + m * x_stride + offsetof(QuantizedBlock, scaled_sum));
        acc[m] = _mm512_fmadd_ps(min, _mm512_set1_ps(x_sum), acc[m]);
      }
    }
    levels += Layout::kLevelBytes;
    scales += Layout::kScaleBytes;
    x += sizeof(QuantizedBlock);
  }
  StoreTile<kRows>(task, group, row, acc);
}

template <WeightFormat kFormat>
[[gnu::always_inline]] inline __m512 LoadElements(const uint8_t* group, int k) {
  if constexpr (kFormat == WeightFormat::kF32) return _mm512_load_ps(group + size_t(k) * 64);
  if constexpr (kFormat == WeightFormat::kF16) return LoadHalves(group + size_t(k) * 32);
  const __m256i bits = _mm256_load_si256(reinterpret_cast<const __m256i*>(group + size_t(k) * 32));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

template <WeightFormat kFormat, int kRows>
void FloatTile(const MatMulTask& task, int group, int row) {
  const uint8_t* weights = task.groups + group * task.group_bytes;
  const float* x = task.values + row * task.values_stride;
  __m512 acc[kRows];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) acc[m] = _mm512_setzero_ps();
  for (int k = 0; k < task.k; ++k) {
    const __m512 w = LoadElements<kFormat>(weights, k);
    for (int m = 0; m < kRows; ++m)
      acc[m] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[m * task.values_stride + k]), acc[m]);
  }
  StoreTile<kRows>(task, group, row, acc);
}

template <WeightFormat kFormat, int kRows>
void Tile(const MatMulTask& task, int group, int row) {
  if constexpr (IsQuantized(kFormat)) {
    QuantizedTile<kFormat, kRows>(task, group, row);
  } else {
    FloatTile<kFormat, kRows>(task, group, row);
  }
}

template <WeightFormat kFormat>
void Run(const MatMulTask& task) {
  using TileFunction = void (*)(const MatMulTask&, int, int);
  static constexpr TileFunction kTiles[kTileRows] = {Tile<kFormat, 1>, Tile<kFormat, 2>, Tile<kFormat, 3>,
                                                     Tile<kFormat, 4>, Tile<kFormat, 5>, Tile<kFormat, 6>,
                                                     Tile<kFormat, 7>, Tile<kFormat, 8>};
  ForEachTile<kTileRows>(task, [&](int group, int row, int count) { kTiles[count - 1](task, group, row); });
}

}  // namespace

void MatMulAvx512(const MatMulTask& task) {
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

}  // namespace dspark

// What matmul.cc and the kernels of each instruction set share: the packed layout and the plan of a call.
//
// A group of 16 rows of W is contiguous. Float formats: [K][16] elements. Quantised formats: the levels of
// all blocks of 32 k, then the scales of all blocks.
//   kInt8            levels [K/32][8][16][4]: unit j of a row = its levels k = 4j … 4j + 3
//                    scales [K/32][16] fp16
//   kInt4, kInt4Min  levels [K/32][4][16][4]: low nibbles = unit j, high nibbles = unit j + 4
//                    scales [K/32][16] fp16; kInt4Min: [K/32][2][16] fp16, scale and min
// So 64 bytes feed one 16-lane dot product against 4 broadcast activations.
//
// Files compiled for an instruction set must not instantiate inline functions that other files use too (the
// linker keeps one copy, perhaps the one this processor cannot run): they take the plain struct below and
// templates on types of their own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"

namespace dspark {

inline constexpr int kGroupRows = 16;
inline constexpr int kBlockSize = 32;

// Bytes per group and block of K; `zero` is the level that means 0.
template <WeightFormat kFormat>
struct QuantizedLayout {
  static constexpr bool kHasMin = kFormat == WeightFormat::kInt4Min;
  static constexpr int kLevelBytes = kFormat == WeightFormat::kInt8 ? 512 : 256;
  static constexpr int kScaleBytes = kHasMin ? 64 : 32;
  static constexpr int kZero = kFormat == WeightFormat::kInt8 ? 128 : kFormat == WeightFormat::kInt4 ? 8 : 0;
};

// One worker's part of a MatMul: groups [first_group, end_group) of all rows of x.
struct MatMulTask {
  WeightFormat format;
  int n, k, rows;
  const uint8_t* groups;
  size_t group_bytes;
  const QuantizedBlock* quantized;  // row r at + r * quantized_stride
  size_t quantized_stride;
  const float* values;  // row r at + r * values_stride
  size_t values_stride;
  float* y;
  size_t y_stride;
  Store store;
  int first_group, end_group;
  const uint8_t* share_end;   // where this worker's groups end
  const uint8_t* next_share;  // what it reads after them
};

void MatMulReference(const MatMulTask& task);
void MatMulAvx2(const MatMulTask& task);
void MatMulAvx512(const MatMulTask& task);

// Quantises 32 * blocks values. A block is too short for wider vectors to pay.
void QuantizeReference(const float* x, int blocks, QuantizedBlock* out);
void QuantizeAvx2(const float* x, int blocks, QuantizedBlock* out);

// Calls kernel(group, row, count) per group and tile of up to kTileRows rows such that a group's weights stay
// in L1 or L2 for all its tiles, and the rows of x in L2 for all groups.
template <int kTileRows, class Kernel>
void ForEachTile(const MatMulTask& task, Kernel kernel) {
  constexpr size_t kRowsBytes = 384 << 10;
  const size_t row_bytes = task.format >= WeightFormat::kInt8 ? task.quantized_stride * sizeof(QuantizedBlock)
                                                              : task.values_stride * sizeof(float);
  const int fit = int(kRowsBytes / row_bytes) / kTileRows * kTileRows;
  const int chunk = fit < kTileRows ? kTileRows : fit;
  for (int begin = 0; begin < task.rows; begin += chunk) {
    const int end = task.rows - begin < chunk ? task.rows : begin + chunk;
    for (int group = task.first_group; group < task.end_group; ++group) {
      for (int row = begin; row < end; row += kTileRows) {
        kernel(group, row, end - row < kTileRows ? end - row : kTileRows);
      }
    }
  }
}

}  // namespace dspark

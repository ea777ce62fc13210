// A sample of the compact cache: a zstd frame of (docs/formats.md)
//   ids int32[T], loss_mask u8[T];
//   per tapped layer: scale f32[T], channel u16[T, 4] and value bf16[T, 4] of the four largest channels of
//   each row, level int8[T, d] of the others; last hidden bf16[R, d] of the R rows a loss can ask for: all
//   high bytes, then all low bytes.
// T ends with the last supervised token: nothing behind it is ever read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "data/sample_bytes.h"

namespace dspark {

// A few channels of a row are often hundreds of times larger than the rest; they would take all levels.
inline constexpr int kKeptChannels = 4;

// Rows whose last hidden state a loss can ask for, ascending: those with a supervised token at or beside
// them. DSpark and DFlash teach slot j of anchor a with row a + j, where token a + j + 1 is supervised;
// Eagle3 with the row behind a supervised one (drafters.md §3.4, §3.7, §6).
std::vector<int> TeacherRows(const std::vector<uint8_t>& loss_mask);

// Tokens up to and with the last supervised one, of which there must be one.
int CompactLength(const std::vector<uint8_t>& loss_mask);

// d is at least kKeptChannels.
std::string CompactBytes(const TrainSample& sample, const SampleShape& shape);

// Rows of last_hidden that are not stored are zeros. Error: `bytes` are not the sample of `seq_len` tokens.
Result<TrainSample> ParseCompact(std::span<const uint8_t> bytes, int seq_len, const SampleShape& shape,
                                 SampleParts parts);

}  // namespace dspark

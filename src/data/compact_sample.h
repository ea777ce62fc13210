// A sample of the compact cache: a zstd frame of (docs/formats.md)
//   left_out int32; ids int32[T], loss_mask u8[T];
//   per tapped layer: scale f32[T], channel u16[T, 4] and value bf16[T, 4] of the four largest channels of
//   each row, level int8[T, d] of the others;
//   of the R rows a loss can ask for: last hidden bf16[R, d], or (teacher_top k > 0) ids int32[R, k] and
//   log-probabilities fp16[R, k]; byte planes of each, the highest bytes of all values first.
// T ends with the token behind the last supervised one, where there is one: Eagle3 reads it and what the
// target says there. Of the left_out tokens behind it only their number is read. Version 1 of the form, which
// shape.knows_length tells, ends with the last supervised token and lacks left_out.
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

// Whether a loss can ask what the target says behind row `row`: those with a supervised token at or beside
// them. DSpark and DFlash teach slot j of anchor a with row a + j, where token a + j + 1 is supervised;
// Eagle3 with the row behind a supervised one (drafters.md §3.4, §3.7, §6).
bool IsTeacherRow(const std::vector<uint8_t>& loss_mask, int row);
// All of them, ascending.
std::vector<int> TeacherRows(const std::vector<uint8_t>& loss_mask);

// T: of the tokens, at least one of which is supervised, those that are kept.
int CompactLength(const std::vector<uint8_t>& loss_mask, const SampleShape& shape);

inline constexpr int kMaxTeacherTop = 1024;

// d is at least kKeptChannels. With shape.teacher_top the sample has its lists.
std::string CompactBytes(const TrainSample& sample, const SampleShape& shape);

// Rows of last_hidden or top that are not stored are zeros. Error: `bytes` are not the sample of `seq_len`
// tokens.
Result<TrainSample> ParseCompact(std::span<const uint8_t> bytes, int seq_len, const SampleShape& shape,
                                 SampleParts parts);

}  // namespace dspark

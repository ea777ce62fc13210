#include "data/compact_sample.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>

#include "core/check.h"
#include "core/float16.h"
#include "load/model_config.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

constexpr int kZstdLevel = 1;  // higher levels find nothing more in rounding noise

// The channels of greatest magnitude in a row [d], ascending. Compared as bits, which orders NaNs too.
std::array<uint16_t, kKeptChannels> LargestChannels(const float* row, int d) {
  const auto magnitude = [&](int i) { return std::bit_cast<uint32_t>(row[i]) & 0x7fffffff; };
  std::array<uint16_t, kKeptChannels> kept{};
  std::iota(kept.begin(), kept.end(), uint16_t{0});
  const auto larger = [&](uint16_t a, uint16_t b) { return magnitude(a) > magnitude(b); };
  std::ranges::sort(kept, larger);
  for (int i = kKeptChannels; i < d; ++i) {
    if (magnitude(i) <= magnitude(kept.back())) continue;
    kept.back() = uint16_t(i);
    for (int k = kKeptChannels - 1; k > 0 && larger(kept[size_t(k)], kept[size_t(k) - 1]); --k)
      std::swap(kept[size_t(k)], kept[size_t(k) - 1]);
  }
  std::ranges::sort(kept);
  return kept;
}

// The tables of one tapped layer, as they follow each other in the frame.
struct LayerLevels {
  std::vector<float> scale;       // [T]
  std::vector<uint16_t> channel;  // [T, kept]
  std::vector<uint16_t> value;    // [T, kept], bf16
  std::vector<int8_t> level;      // [T, d], 0 where the channel is kept
};

void QuantizeRow(const float* row, int d, LayerLevels* levels) {
  const auto kept = LargestChannels(row, d);
  float most = 0;
  for (int i = 0, k = 0; i < d; ++i) {
    if (k < kKeptChannels && kept[size_t(k)] == i)
      ++k;
    else
      most = std::max(most, std::abs(row[i]));
  }
  const float scale = most / 127, inverse = scale > 0 && std::isfinite(scale) ? 1 / scale : 0;
  levels->scale.push_back(scale);
  const size_t begin = levels->level.size();
  for (int i = 0; i < d; ++i)
    levels->level.push_back(int8_t(std::clamp(std::nearbyint(row[i] * inverse), -127.0f, 127.0f)));
  for (const uint16_t channel : kept) {
    levels->channel.push_back(channel);
    levels->value.push_back(FloatToBf16(row[channel]));
    levels->level[begin + channel] = 0;
  }
}

template <class T>
void Append(const std::vector<T>& values, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// All highest bytes, then all next ones, and so on: those that are mostly alike compress well side by side.
template <class T>
void AppendPlanes(const std::vector<T>& values, std::string* bytes) {
  for (int shift = 8 * (int(sizeof(T)) - 1); shift >= 0; shift -= 8)
    for (const T value : values) bytes->push_back(char(value >> shift & 0xff));
}

// Takes arrays from the front of a frame whose size was checked.
class Taker {
 public:
  explicit Taker(const std::string& bytes) : at_(bytes.data()) {}
  template <class T>
  std::vector<T> Take(size_t size) {
    std::vector<T> values(size);
    if (size > 0) std::memcpy(values.data(), at_, size * sizeof(T));  // an empty vector has no address
    at_ += size * sizeof(T);
    return values;
  }
  template <class T>
  std::vector<T> TakePlanes(size_t size) {
    std::vector<T> values(size);
    for (size_t plane = 0; plane < sizeof(T); ++plane)
      for (T& value : values) value = T(value << 8 | uint8_t(*at_++));
    return values;
  }

 private:
  const char* at_;
};

size_t LayerBytes(size_t t, size_t d) { return t * (sizeof(float) + 4 * size_t(kKeptChannels) + d); }

// Before the taps.
size_t TokenBytes(size_t t, const SampleShape& shape) {
  return (shape.knows_length ? sizeof(int32_t) : 0) + t * (sizeof(int32_t) + 1);
}

// Of a row that a loss can ask for.
size_t TeacherBytes(const SampleShape& shape) {
  return shape.teacher_top > 0 ? size_t(shape.teacher_top) * (sizeof(uint32_t) + sizeof(uint16_t))
                               : size_t(shape.d_model) * sizeof(uint16_t);
}

Error Damaged() { return MakeError("is damaged"); }

std::string Packed(const std::string& frame) {
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kZstdLevel);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);  // or flipped bits would be read as states
  std::string bytes(ZSTD_compressBound(frame.size()), '\0');
  const size_t size = ZSTD_compress2(context.get(), bytes.data(), bytes.size(), frame.data(), frame.size());
  DSPARK_CHECK(!ZSTD_isError(size));
  bytes.resize(size);
  return bytes;
}

// What a zstd frame of `size` bytes holds, its checksum compared; empty where it is damaged.
std::string Unpacked(std::span<const uint8_t> bytes, size_t size) {
  std::string frame(size, '\0');
  const size_t got = ZSTD_decompress(frame.data(), size, bytes.data(), bytes.size());
  frame.resize(ZSTD_isError(got) ? 0 : got);
  return frame;
}

// The first `size` bytes of what it holds; fewer where it holds fewer or is damaged.
std::string UnpackedFront(std::span<const uint8_t> bytes, size_t size) {
  std::string frame(size, '\0');
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  ZSTD_outBuffer out{frame.data(), size, 0};
  while (in.pos < in.size && out.pos < out.size &&
         !ZSTD_isError(ZSTD_decompressStream(context.get(), &out, &in))) {
  }
  frame.resize(out.pos);
  return frame;
}

// Takes the tables of tapped layer `layer` and puts its rows in their places.
Status TakeLayer(const SampleShape& shape, size_t layer, Taker* taker, TrainSample* sample) {
  const size_t t = sample->ids.size(), d = size_t(shape.d_model), m = shape.tap_layers.size();
  const auto scale = taker->Take<float>(t);
  const auto channel = taker->Take<uint16_t>(t * kKeptChannels),
             value = taker->Take<uint16_t>(t * kKeptChannels);
  const auto level = taker->Take<int8_t>(t * d);
  for (size_t i = 0; i < t; ++i) {
    float* row = &sample->taps[(i * m + layer) * d];
    for (size_t c = 0; c < d; ++c) row[c] = scale[i] * float(level[i * d + c]);
    float least = INFINITY;
    for (size_t k = i * kKeptChannels; k < (i + 1) * kKeptChannels; ++k) {
      if (channel[k] >= d) return Damaged();
      row[channel[k]] = Bf16ToFloat(value[k]);
      least = std::min(least, std::abs(row[channel[k]]));
    }
    // No level is larger than the least that is kept apart, but for what bf16 rounds.
    if (!(scale[i] >= 0 && scale[i] * 127 <= least * 1.01f + 1e-37f))
      return MakeError("has the scale {} in row {} of tapped layer {}", scale[i], i, shape.tap_layers[layer]);
  }
  return {};
}

void AppendTeacher(const TrainSample& sample, const SampleShape& shape, const std::vector<int>& rows,
                   std::string* frame) {
  std::vector<uint16_t> values;
  if (shape.teacher_top == 0) {
    const size_t d = size_t(shape.d_model);
    for (const int row : rows) {
      for (size_t i = 0; i < d; ++i) values.push_back(FloatToBf16(sample.last_hidden[size_t(row) * d + i]));
    }
    return AppendPlanes(values, frame);
  }
  const size_t k = size_t(shape.teacher_top);
  std::vector<uint32_t> ids;
  for (const int row : rows) {
    for (size_t i = size_t(row) * k; i < size_t(row + 1) * k; ++i) {
      ids.push_back(uint32_t(sample.top.ids[i]));
      values.push_back(FloatToHalf(sample.top.log_p[i]));
    }
  }
  AppendPlanes(ids, frame);
  AppendPlanes(values, frame);
}

// Whether a list of `k` is one that a target gives: different ids of its vocabulary, the likeliest first.
bool IsTopList(const int32_t* ids, const float* log_p, size_t k, int vocab) {
  std::vector<int32_t> ascending(ids, ids + k);
  std::ranges::sort(ascending);
  if (ascending.front() < 0 || ascending.back() >= vocab) return false;
  if (std::ranges::adjacent_find(ascending) != ascending.end()) return false;
  const bool numbers = std::all_of(log_p, log_p + k, [](float x) { return std::isfinite(x) && x <= 0; });
  return numbers && std::is_sorted(log_p, log_p + k, std::greater<float>());
}

// The inverse of AppendTeacher.
Status TakeTeacher(const SampleShape& shape, const std::vector<int>& rows, Taker* taker,
                   TrainSample* sample) {
  const size_t t = sample->ids.size(), d = size_t(shape.d_model), k = size_t(shape.teacher_top);
  if (k == 0) {
    sample->last_hidden.resize(t * d);
    const auto values = taker->TakePlanes<uint16_t>(rows.size() * d);
    for (size_t i = 0; i < values.size(); ++i)
      sample->last_hidden[size_t(rows[i / d]) * d + i % d] = Bf16ToFloat(values[i]);
    return {};
  }
  sample->top.ids.resize(t * k);
  sample->top.log_p.resize(t * k);
  const auto ids = taker->TakePlanes<uint32_t>(rows.size() * k);
  const auto values = taker->TakePlanes<uint16_t>(rows.size() * k);
  for (size_t i = 0; i < rows.size(); ++i) {
    int32_t* row_ids = &sample->top.ids[size_t(rows[i]) * k];
    float* row_log_p = &sample->top.log_p[size_t(rows[i]) * k];
    std::copy_n(&ids[i * k], k, row_ids);
    std::transform(&values[i * k], &values[i * k] + k, row_log_p, HalfToFloat);
    if (!IsTopList(row_ids, row_log_p, k, shape.vocab)) return Damaged();
  }
  return {};
}

}  // namespace

bool IsTeacherRow(const std::vector<uint8_t>& loss_mask, int row) {
  const auto supervised = [&](int i) {
    return i >= 0 && i < int(loss_mask.size()) && loss_mask[size_t(i)] != 0;
  };
  return supervised(row - 1) || supervised(row) || supervised(row + 1);
}

std::vector<int> TeacherRows(const std::vector<uint8_t>& loss_mask) {
  std::vector<int> rows;
  for (int i = 0; i < int(loss_mask.size()); ++i) {
    if (IsTeacherRow(loss_mask, i)) rows.push_back(i);
  }
  return rows;
}

int CompactLength(const std::vector<uint8_t>& loss_mask, const SampleShape& shape) {
  const auto last = std::find(loss_mask.rbegin(), loss_mask.rend(), uint8_t{1});
  DSPARK_CHECK(last != loss_mask.rend());
  const int next = shape.knows_length && last != loss_mask.rbegin() ? 1 : 0;
  return int(loss_mask.rend() - last) + next;
}

std::string CompactBytes(const TrainSample& sample, const SampleShape& shape) {
  const size_t t = size_t(CompactLength(sample.loss_mask, shape)), d = size_t(shape.d_model);
  const size_t m = shape.tap_layers.size();
  DSPARK_CHECK_LE(kKeptChannels, shape.d_model);
  std::string frame;
  if (shape.knows_length) Append(std::vector{sample.left_out + int32_t(sample.ids.size() - t)}, &frame);
  frame.append(reinterpret_cast<const char*>(sample.ids.data()), t * sizeof(int32_t));
  const std::vector<uint8_t> mask(sample.loss_mask.begin(), sample.loss_mask.begin() + ptrdiff_t(t));
  Append(mask, &frame);
  for (size_t layer = 0; layer < m; ++layer) {
    LayerLevels levels;
    for (size_t i = 0; i < t; ++i) QuantizeRow(&sample.taps[(i * m + layer) * d], shape.d_model, &levels);
    Append(levels.scale, &frame);
    Append(levels.channel, &frame);
    Append(levels.value, &frame);
    Append(levels.level, &frame);
  }
  AppendTeacher(sample, shape, TeacherRows(mask), &frame);

  return Packed(frame);
}

Result<TrainSample> ParseCompact(std::span<const uint8_t> bytes, int seq_len, const SampleShape& shape,
                                 SampleParts parts) {
  const size_t t = size_t(seq_len), d = size_t(shape.d_model), m = shape.tap_layers.size();
  const size_t without_teacher = TokenBytes(t, shape) + m * LayerBytes(t, d);
  const auto size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size < without_teacher ||
      size > without_teacher + t * TeacherBytes(shape))
    return Damaged();
  const size_t asked = parts == SampleParts::kAll ? size : TokenBytes(t, shape);
  const std::string frame = parts == SampleParts::kAll ? Unpacked(bytes, asked) : UnpackedFront(bytes, asked);
  if (frame.size() != asked) return Damaged();

  Taker taker(frame);
  TrainSample sample;
  if (shape.knows_length) sample.left_out = taker.Take<int32_t>(1)[0];
  if (sample.left_out < 0 || sample.left_out > kMaxModelSize) return Damaged();
  sample.ids = taker.Take<int32_t>(t);
  sample.loss_mask = taker.Take<uint8_t>(t);
  if (parts == SampleParts::kTokens) return sample;
  const std::vector<int> rows = TeacherRows(sample.loss_mask);
  if (size != without_teacher + rows.size() * TeacherBytes(shape)) return Damaged();
  sample.taps.resize(t * m * d);
  for (size_t layer = 0; layer < m; ++layer) DSPARK_RETURN_IF_ERROR(TakeLayer(shape, layer, &taker, &sample));
  DSPARK_RETURN_IF_ERROR(TakeTeacher(shape, rows, &taker, &sample));
  return sample;
}

}  // namespace dspark

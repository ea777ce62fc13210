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

 private:
  const char* at_;
};

size_t LayerBytes(size_t t, size_t d) { return t * (sizeof(float) + 4 * size_t(kKeptChannels) + d); }

Error Damaged() { return MakeError("is damaged"); }

// The first `size` bytes of what a zstd frame holds; fewer where it holds fewer or is damaged.
std::string Unpacked(std::span<const uint8_t> bytes, size_t size) {
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

}  // namespace

std::vector<int> TeacherRows(const std::vector<uint8_t>& loss_mask) {
  std::vector<int> rows;
  const int t = int(loss_mask.size());
  const auto supervised = [&](int i) { return i >= 0 && i < t && loss_mask[size_t(i)] != 0; };
  for (int i = 0; i < t; ++i) {
    if (supervised(i - 1) || supervised(i) || supervised(i + 1)) rows.push_back(i);
  }
  return rows;
}

int CompactLength(const std::vector<uint8_t>& loss_mask) {
  const auto last = std::find(loss_mask.rbegin(), loss_mask.rend(), uint8_t{1});
  DSPARK_CHECK(last != loss_mask.rend());
  return int(loss_mask.rend() - last);
}

std::string CompactBytes(const TrainSample& sample, const SampleShape& shape) {
  const size_t t = size_t(CompactLength(sample.loss_mask)), d = size_t(shape.d_model);
  const size_t m = shape.tap_layers.size();
  DSPARK_CHECK_LE(kKeptChannels, shape.d_model);
  std::string frame(reinterpret_cast<const char*>(sample.ids.data()), t * sizeof(int32_t));
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
  std::string high, low;
  for (const int row : TeacherRows(mask)) {
    for (size_t i = 0; i < d; ++i) {
      const uint16_t value = FloatToBf16(sample.last_hidden[size_t(row) * d + i]);
      high.push_back(char(value >> 8));
      low.push_back(char(value & 0xff));
    }
  }
  frame += high + low;

  std::string bytes(ZSTD_compressBound(frame.size()), '\0');
  const size_t size = ZSTD_compress(bytes.data(), bytes.size(), frame.data(), frame.size(), kZstdLevel);
  DSPARK_CHECK(!ZSTD_isError(size));
  bytes.resize(size);
  return bytes;
}

Result<TrainSample> ParseCompact(std::span<const uint8_t> bytes, int seq_len, const SampleShape& shape,
                                 SampleParts parts) {
  const size_t t = size_t(seq_len), d = size_t(shape.d_model), m = shape.tap_layers.size();
  const size_t without_last = t * (sizeof(int32_t) + 1) + m * LayerBytes(t, d);
  const auto size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size < without_last ||
      size > without_last + t * d * 2)
    return Damaged();
  const size_t asked = parts == SampleParts::kAll ? size : t * (sizeof(int32_t) + 1);
  const std::string frame = Unpacked(bytes, asked);
  if (frame.size() != asked) return Damaged();

  Taker taker(frame);
  TrainSample sample;
  sample.ids = taker.Take<int32_t>(t);
  sample.loss_mask = taker.Take<uint8_t>(t);
  if (parts == SampleParts::kTokens) return sample;
  const std::vector<int> rows = TeacherRows(sample.loss_mask);
  if (size != without_last + rows.size() * d * 2) return Damaged();
  sample.taps.resize(t * m * d);
  for (size_t layer = 0; layer < m; ++layer) {
    const auto scale = taker.Take<float>(t);
    const auto channel = taker.Take<uint16_t>(t * kKeptChannels),
               value = taker.Take<uint16_t>(t * kKeptChannels);
    const auto level = taker.Take<int8_t>(t * d);
    for (size_t i = 0; i < t; ++i) {
      float* row = &sample.taps[(i * m + layer) * d];
      for (size_t c = 0; c < d; ++c) row[c] = scale[i] * float(level[i * d + c]);
      for (size_t k = i * kKeptChannels; k < (i + 1) * kKeptChannels; ++k) {
        if (channel[k] >= d) return Damaged();
        row[channel[k]] = Bf16ToFloat(value[k]);
      }
    }
  }
  sample.last_hidden.resize(t * d);
  const auto high = taker.Take<uint8_t>(rows.size() * d), low = taker.Take<uint8_t>(rows.size() * d);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t c = 0; c < d; ++c)
      sample.last_hidden[size_t(rows[i]) * d + c] =
          Bf16ToFloat(uint16_t(high[i * d + c] << 8 | low[i * d + c]));
  }
  return sample;
}

}  // namespace dspark

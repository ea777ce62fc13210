// Writes GGUF files byte by byte, valid ones and broken ones: every field can be set to anything before
// Build().
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/float16.h"
#include "core/tensor_type.h"

namespace dspark::test {

template <class T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Value type ids of the GGUF specification.
enum : uint32_t {
  kGgufU8 = 0,
  kGgufI32 = 5,
  kGgufU32 = 4,
  kGgufF32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufU64 = 10
};

inline std::string GgufText(std::string_view text) {
  return Bytes<uint64_t>(text.size()) + std::string(text);
}

struct GgufBuilder {
  struct Entry {
    std::string key;
    uint32_t type;
    std::string value;  // as it lies in the file
  };
  struct Tensor {
    std::string name;
    uint32_t type;
    std::vector<uint64_t> ne;  // innermost first, as in the file
    std::string data;
    std::optional<uint64_t> offset;  // instead of the next free one
  };
  // Where a field of the header lies in the built file.
  struct Field {
    std::string name;
    size_t offset, size;
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::optional<uint64_t> claimed_tensors, claimed_entries;  // instead of the true counts
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;

  void Set(const std::string& key, uint32_t type, std::string value) {
    for (Entry& entry : entries) {
      if (entry.key == key) {
        entry = {key, type, std::move(value)};
        return;
      }
    }
    entries.push_back({key, type, std::move(value)});
  }
  void U32(const std::string& key, uint32_t value) { Set(key, kGgufU32, Bytes(value)); }
  void F32(const std::string& key, float value) { Set(key, kGgufF32, Bytes(value)); }
  void Bool(const std::string& key, bool value) { Set(key, kGgufBool, Bytes<uint8_t>(value)); }
  void String(const std::string& key, std::string_view value) { Set(key, kGgufString, GgufText(value)); }
  void Strings(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = Bytes<uint32_t>(kGgufString) + Bytes<uint64_t>(values.size());
    for (const std::string& value : values) bytes += GgufText(value);
    Set(key, kGgufArray, std::move(bytes));
  }
  void I32s(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes = Bytes<uint32_t>(kGgufI32) + Bytes<uint64_t>(values.size());
    for (int32_t value : values) bytes += Bytes(value);
    Set(key, kGgufArray, std::move(bytes));
  }
  void Remove(const std::string& key) {
    std::erase_if(entries, [&](const Entry& entry) { return entry.key == key; });
  }
  Tensor& TensorNamed(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    CheckFailed(__FILE__, __LINE__, "no tensor " + name);
  }

  // The file. `fields`, if given, receives the place of every header field; `data_start` the start of the
  // data.
  std::string Build(std::vector<Field>* fields = nullptr, size_t* data_start = nullptr) const {
    std::string out;
    const auto add = [&](const std::string& name, const std::string& bytes) {
      if (fields) fields->push_back({name, out.size(), bytes.size()});
      out += bytes;
    };
    add("magic", magic);
    add("version", Bytes(version));
    add("tensor count", Bytes<uint64_t>(claimed_tensors.value_or(tensors.size())));
    add("key count", Bytes<uint64_t>(claimed_entries.value_or(entries.size())));
    for (const Entry& entry : entries) {
      add("key length", Bytes<uint64_t>(entry.key.size()));
      add("key", entry.key);
      add("value type", Bytes(entry.type));
      add("value", entry.value);
    }
    uint64_t next = 0;
    std::vector<uint64_t> offsets;
    for (const Tensor& tensor : tensors) {
      offsets.push_back(tensor.offset.value_or(next));
      add("tensor name length", Bytes<uint64_t>(tensor.name.size()));
      add("tensor name", tensor.name);
      add("dimensions", Bytes(uint32_t(tensor.ne.size())));
      for (uint64_t n : tensor.ne) add("dimension", Bytes(n));
      add("tensor type", Bytes(tensor.type));
      add("offset", Bytes(offsets.back()));
      if (!tensor.offset) next = AlignUp(next + tensor.data.size());
    }
    if (!tensors.empty()) out.resize(AlignUp(out.size()));
    if (data_start) *data_start = out.size();
    const size_t start = out.size();
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].offset) continue;  // the place of a forced offset is the test's business
      out.resize(start + offsets[i]);
      out += tensors[i].data;
    }
    return out;
  }

 private:
  uint64_t AlignUp(uint64_t n) const { return (n + alignment - 1) / alignment * alignment; }
};

// One block of 32 values as ggml's quantisers choose levels (round to nearest).
inline void QuantizeBlock(TensorType type, const float* x, std::string* out) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float largest = std::fabs(*low) > std::fabs(*high) ? *low : *high;
  const auto level = [](float v, int max) { return uint8_t(std::clamp(int(std::lround(v)), 0, max)); };
  float scale = 0, min = 0;
  if (type == TensorType::kQ4_0) scale = largest / -8;
  if (type == TensorType::kQ4_1) scale = (*high - *low) / 15, min = *low;
  if (type == TensorType::kQ8_0) scale = std::fabs(largest) / 127;
  const float inverse = scale != 0 ? 1 / scale : 0;
  *out += Bytes(FloatToHalf(scale));
  if (type == TensorType::kQ4_1) *out += Bytes(FloatToHalf(min));
  if (type == TensorType::kQ8_0) {
    for (int j = 0; j < 32; ++j) *out += char(std::lround(x[j] * inverse));
    return;
  }
  const float zero = type == TensorType::kQ4_0 ? 8 : 0;
  for (int j = 0; j < 16; ++j) {
    const uint8_t first = level((x[j] - min) * inverse + zero, 15);
    const uint8_t second = level((x[j + 16] - min) * inverse + zero, 15);
    *out += char(first | second << 4);
  }
}

// Values as a file of the given type stores them. F32, F16, BF16, Q4_0, Q4_1, Q8_0.
inline std::string Quantize(TensorType type, std::span<const float> values) {
  std::string out;
  const int block = InfoOf(type).block_values;
  DSPARK_CHECK_EQ(values.size() % size_t(block), size_t(0));
  for (size_t i = 0; i < values.size(); i += size_t(block)) {
    if (type == TensorType::kF32) {
      out += Bytes(values[i]);
    } else if (type == TensorType::kF16) {
      out += Bytes(FloatToHalf(values[i]));
    } else if (type == TensorType::kBF16) {
      out += Bytes(FloatToBf16(values[i]));
    } else {
      QuantizeBlock(type, &values[i], &out);
    }
  }
  return out;
}

}  // namespace dspark::test

// The headers of tensor files we write: what stands before the data in GGUF (version 3) and safetensors. The
// data follows, tensor by tensor in the same order; in GGUF each is padded to kGgufAlignment.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor_type.h"
#include "load/gguf.h"

namespace dspark {

struct TensorHeader {
  std::string name;
  TensorType type;
  std::vector<int64_t> shape;  // outermost first; the last dimension is whole blocks of the type

  uint64_t Bytes() const;
};

// Metadata of a GGUF file, in the order added.
class GgufKeys {
 public:
  void U32(std::string_view key, uint32_t value);
  void F32(std::string_view key, float value);
  void Bool(std::string_view key, bool value);
  void String(std::string_view key, std::string_view value);
  void I32s(std::string_view key, std::span<const int32_t> values);
  void F32s(std::string_view key, std::span<const float> values);
  // A value of another file, as it is there.
  void Copy(std::string_view key, const GgufValue& value);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void Begin(std::string_view key, GgufType type);
  void BeginArray(std::string_view key, GgufType type, uint64_t count);

  std::string bytes_;
  uint64_t count_ = 0;
};

inline constexpr uint64_t kGgufAlignment = 32;

// `size` rounded up to the alignment.
uint64_t GgufPadded(uint64_t size);

// Padded, so that the first tensor's data begins right behind it.
std::string GgufHeader(const GgufKeys& keys, std::span<const TensorHeader> tensors);

// F32, F16, BF16 and I64 tensors.
std::string SafetensorsHeader(std::span<const TensorHeader> tensors);

}  // namespace dspark

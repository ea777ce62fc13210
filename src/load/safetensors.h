// The safetensors container: a JSON table of tensors, then their bytes. Header length (u64, little-endian),
// header, data, as the safetensors documentation describes them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/tensor_type.h"

namespace dspark {

struct SafeTensor {
  std::string name;
  std::string_view dtype;          // "F32", "BF16", "I32", ... as the format spells it
  std::optional<TensorType> type;  // for the dtypes weights come in: F32, F16, BF16 (and I64)
  std::vector<int64_t> shape;      // outermost first; [] is a scalar; dimensions may be 0
  std::span<const uint8_t> bytes;  // not necessarily aligned
};

// A parsed file; bytes point into the file given to ParseSafetensors, which must outlive it.
struct Safetensors {
  std::vector<SafeTensor> tensors;  // as they lie in the file

  // Null when there is no such tensor.
  const SafeTensor* Find(std::string_view name) const;
};

// Checks header length (at most 100 MB), JSON, distinct names, dtypes, shapes against sizes, and that the
// tensors fill the data without hole or overlap. Error: one line with `path`, the tensor and the cure.
Result<Safetensors> ParseSafetensors(std::span<const uint8_t> file, const std::string& path);

}  // namespace dspark

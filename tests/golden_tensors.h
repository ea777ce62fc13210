// Tensors of golden safetensors files, by name, as vectors. A missing file or tensor fails the check loudly:
// tests skip before (DSPARK_SKIP_WITHOUT_GOLDEN).
#pragma once

#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "core/tensor_type.h"
#include "load/safetensors.h"
#include "load/unaligned.h"

namespace dspark::test {

class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& path)
      : file_(Open(path)), parsed_(ParseSafetensors(file_.bytes(), path).value()) {}

  const SafeTensor& Find(const std::string& name) const {
    const SafeTensor* tensor = parsed_.Find(name);
    if (!tensor) CheckFailed(__FILE__, __LINE__, file_.path() + " has no tensor " + name);
    return *tensor;
  }
  // F32, F16 and BF16 widened.
  std::vector<float> Floats(const std::string& name) const {
    const SafeTensor& tensor = Find(name);
    DSPARK_CHECK(tensor.type.has_value());
    std::vector<float> values(tensor.bytes.size() / size_t(InfoOf(*tensor.type).block_bytes));
    Dequantize(*tensor.type, tensor.bytes.data(), int64_t(values.size()), values.data());
    return values;
  }
  // I32, or I64 narrowed.
  std::vector<int32_t> Ints(const std::string& name) const {
    const SafeTensor& tensor = Find(name);
    DSPARK_CHECK(tensor.dtype == "I32" || tensor.dtype == "I64");
    return tensor.dtype == "I32" ? Narrowed<int32_t>(tensor) : Narrowed<int64_t>(tensor);
  }

 private:
  template <class T>
  static std::vector<int32_t> Narrowed(const SafeTensor& tensor) {
    std::vector<int32_t> values(tensor.bytes.size() / sizeof(T));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = int32_t(LoadUnaligned<T>(&tensor.bytes[i * sizeof(T)]));
    return values;
  }
  static MappedFile Open(const std::string& path) {
    auto file = MappedFile::Open(path);
    if (!file) CheckFailed(__FILE__, __LINE__, file.error().text);
    return std::move(file).value();
  }
  MappedFile file_;
  Safetensors parsed_;
};

}  // namespace dspark::test

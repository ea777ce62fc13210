// Weights by name, whatever file they lie in. Names are llama.cpp's ("blk.0.attn_q.weight"); a source for
// another format translates them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor_type.h"

namespace dspark {

// A tensor inside a mapped file. Row-major: shape is [out, in] for matrices, [n] for vectors; the last
// dimension is contiguous (GGUF's ne[0]). `bytes` is exactly the tensor, bounds checked when the file was
// opened.
struct TensorView {
  std::string name;  // as the file spells it, for messages
  TensorType type;
  std::vector<int64_t> shape;  // outermost first
  std::span<const uint8_t> bytes;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Null when the file has no such tensor.
  virtual const TensorView* Find(std::string_view name) const = 0;
  // The tensor's pages are not needed any more (MappedFile::Release).
  virtual void Release(const TensorView& tensor) const = 0;
  // The file or directory, for messages.
  virtual const std::string& path() const = 0;
};

}  // namespace dspark

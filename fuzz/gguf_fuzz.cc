// Any bytes as a GGUF file: parsed, and read to the last value by all that a model is opened with.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "load/gguf.h"
#include "load/gguf_model.h"
#include "load/gguf_tokenizer.h"
#include "load/ngram_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  const auto gguf = ParseGguf({data, size}, "input");
  if (!gguf) return 0;
  for (const TensorView& tensor : gguf->tensors) {
    const TensorTypeInfo& info = InfoOf(tensor.type);
    if (!info.dequantize) continue;
    const int64_t n = int64_t(tensor.bytes.size()) / info.block_bytes * info.block_values;
    std::vector<float> values(static_cast<size_t>(n));
    Dequantize(tensor.type, tensor.bytes.data(), n, values.data());
  }
  for (const auto& [key, value] : gguf->metadata) {
    for (uint64_t i = 0; i < value.count; ++i) (void)GgufElementText(value, i);
  }
  (void)ConfigFromGguf(*gguf).ok();
  (void)NgramFile::Parse(*gguf).ok();
  auto spec = TokenizerSpecFromGguf(*gguf);
  if (spec.ok() && spec->has_value()) (void)Tokenizer::Make(std::move(**spec)).ok();
  return 0;
}

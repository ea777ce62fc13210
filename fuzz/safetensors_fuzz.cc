// Any bytes as a safetensors file; every byte of every tensor is touched.
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "load/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = dspark::ParseSafetensors({data, size}, "input");
  if (!parsed) return 0;
  uint64_t sum = 0;
  for (const auto& tensor : parsed->tensors)
    sum = std::accumulate(tensor.bytes.begin(), tensor.bytes.end(), sum);
  volatile uint64_t sink = sum;  // keeps the reads
  (void)sink;
  return 0;
}

// What a model file holds, as plain rows for people (`dspark info`). The file need not be a model we can run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace dspark {

struct ListedKey {
  std::string key;
  std::string type;   // "u32", "string", "string[49152]"
  std::string value;  // one printable line, long texts and arrays cut short with "..."
};

struct ListedTensor {
  std::string name;            // as the file spells it
  std::string type;            // "Q4_1", "F32", ...
  std::vector<int64_t> shape;  // outermost first
  uint64_t bytes;
};

struct ModelListing {
  std::string format;  // "GGUF v3", "safetensors"
  uint64_t file_bytes;
  std::vector<ListedKey> metadata;  // in file order; none for safetensors
  std::vector<ListedTensor> tensors;
};

// Lists a GGUF or a safetensors file, or all safetensors of a Hugging Face directory. Error: as ParseGguf,
// ParseSafetensors and HfWeightFiles.
Result<ModelListing> ListModel(const std::string& path);

}  // namespace dspark

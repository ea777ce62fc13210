// Element types of tensor files (GGUF's type ids, also used for safetensors): geometry, and what a block
// means.
//
// Adding a block format is one row of the table in tensor_type.cc plus its two decode functions; the GGUF
// reader, the packer and `info` find it there.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace dspark {

// Numbers are ggml's (GGUF spec, "ggml_type").
enum class TensorType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kBF16 = 30,
};

// One quantised block of 32 values as integer levels: value[i] = scale * (level[i] - zero) + min.
// The packer stores levels and fp16 scales as they are, so nothing of the file's precision is lost.
struct BlockLevels {
  uint8_t level[32];  // 0..15 (4 bits) or 0..255 (8 bits)
  uint16_t scale;     // fp16
  uint16_t min;       // fp16, 0 where the format has none
};

struct TensorTypeInfo {
  TensorType type;
  std::string_view name;  // "Q4_1", as `info` prints it
  int block_values;       // values per block: 1 for plain types
  int block_bytes;
  int level_bits;  // 4 or 8 for quantised blocks of 32; 0 for plain types
  int zero;        // the level that means 0 before `min` (8 for Q4_0, 128 for Q8_0)
  bool has_min;
  void (*dequantize)(const uint8_t* block, float* values);    // one block
  void (*levels)(const uint8_t* block, BlockLevels* levels);  // one block; null for plain types
  bool (*finite)(const uint8_t* src, int64_t blocks);         // AllFinite of many blocks
};

// Null for a type this build does not know.
const TensorTypeInfo* FindTensorType(int32_t id);
const TensorTypeInfo& InfoOf(TensorType type);

// Decodes n values (a multiple of the block size) to fp32. `src` needs no alignment.
void Dequantize(TensorType type, const uint8_t* src, int64_t n, float* dst);

// False when one of n values (a multiple of the block size) is NaN or infinite. Reads only the numbers that
// can be: of a quantised block, its fp16 scale and min.
bool AllFinite(TensorType type, const uint8_t* src, int64_t n);

}  // namespace dspark

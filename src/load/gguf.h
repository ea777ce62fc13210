// The GGUF container (ggml's docs/gguf.md), versions 2 and 3, little-endian: metadata and tensors as plain
// data that points into the file's bytes. What the keys mean is known to gguf_model.h and gguf_tokenizer.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "core/result.h"
#include "load/tensor_source.h"

namespace dspark {

// Value types, numbered as in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

std::string_view GgufTypeName(GgufType type);

// A metadata value; a scalar is an array of one.
struct GgufValue {
  GgufType type = GgufType::kU8;  // of the elements, never kArray
  bool is_array = false;
  uint64_t count = 1;                     // elements
  std::span<const uint8_t> bytes;         // numbers and bools as they lie in the file, unaligned
  std::vector<std::string_view> strings;  // [count] for strings, else empty
};

// Element i < count for people: a number in decimal, true or false, a string as it is in the file.
std::string GgufElementText(const GgufValue& value, uint64_t i);

// A parsed file. Everything points into the bytes given to ParseGguf, which must outlive it.
struct Gguf {
  std::string path;  // for messages
  uint32_t version = 0;
  uint64_t alignment = 32;
  uint64_t data_start = 0;  // of the tensor data, bytes from the start of the file
  std::vector<std::pair<std::string_view, GgufValue>> metadata;  // as ordered in the file, keys distinct
  std::vector<TensorView> tensors;  // as ordered in the file, names distinct, bytes disjoint

  // Null when there is no such key (tensor).
  const GgufValue* FindKey(std::string_view key) const;
  const TensorView* FindTensor(std::string_view name) const;

  // The value of a key. T: int64_t (any integer type), double (f32 or f64), bool, std::string_view, or
  // vectors of int64_t, double and std::string_view (arrays). Error: no such key, or a value of another kind;
  // both name the key.
  template <class T>
  Result<T> Get(std::string_view key) const;
  // The same, but a missing key is no error.
  template <class T>
  Result<T> GetOr(std::string_view key, T otherwise) const {
    return FindKey(key) ? Get<T>(key) : Result<T>(std::move(otherwise));
  }
};

// Checks every count, length, type, shape and offset of the file. Error: one line with `path`, the place
// (key, tensor, byte) and the cure. Takes time and memory in proportion to the file's size at most, whatever
// it claims.
Result<Gguf> ParseGguf(std::span<const uint8_t> file, const std::string& path);

// True when the bytes begin with GGUF's magic number.
bool LooksLikeGguf(std::span<const uint8_t> file);

// A mapped file and what it holds.
struct GgufFile {
  MappedFile file;
  Gguf gguf;
};

// Error: as MappedFile::Open and ParseGguf; for a file of another format, what to give instead.
Result<GgufFile> OpenGgufFile(const std::string& path);

}  // namespace dspark

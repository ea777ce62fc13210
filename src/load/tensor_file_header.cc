#include "load/tensor_file_header.h"

#include <nlohmann/json.hpp>

#include "core/check.h"

namespace dspark {
namespace {

template <class T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(std::string* out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out->append(text);
}

}  // namespace

uint64_t TensorHeader::Bytes() const {
  const TensorTypeInfo& info = InfoOf(type);
  uint64_t values = 1;
  for (const int64_t n : shape) values *= uint64_t(n);
  DSPARK_CHECK(shape.back() % info.block_values == 0);
  return values / uint64_t(info.block_values) * uint64_t(info.block_bytes);
}

void GgufKeys::Begin(std::string_view key, GgufType type) {
  AppendText(&bytes_, key);
  Append(&bytes_, type);
  ++count_;
}

void GgufKeys::U32(std::string_view key, uint32_t value) {
  Begin(key, GgufType::kU32);
  Append(&bytes_, value);
}

void GgufKeys::F32(std::string_view key, float value) {
  Begin(key, GgufType::kF32);
  Append(&bytes_, value);
}

void GgufKeys::Bool(std::string_view key, bool value) {
  Begin(key, GgufType::kBool);
  Append(&bytes_, uint8_t(value));
}

void GgufKeys::String(std::string_view key, std::string_view value) {
  Begin(key, GgufType::kString);
  AppendText(&bytes_, value);
}

void GgufKeys::BeginArray(std::string_view key, GgufType type, uint64_t count) {
  Begin(key, GgufType::kArray);
  Append(&bytes_, type);
  Append(&bytes_, count);
}

void GgufKeys::I32s(std::string_view key, std::span<const int32_t> values) {
  BeginArray(key, GgufType::kI32, values.size());
  for (const int32_t value : values) Append(&bytes_, value);
}

void GgufKeys::F32s(std::string_view key, std::span<const float> values) {
  BeginArray(key, GgufType::kF32, values.size());
  for (const float value : values) Append(&bytes_, value);
}

void GgufKeys::Copy(std::string_view key, const GgufValue& value) {
  value.is_array ? BeginArray(key, value.type, value.count) : Begin(key, value.type);
  for (const std::string_view text : value.strings) AppendText(&bytes_, text);
  bytes_.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
}

uint64_t GgufPadded(uint64_t size) { return (size + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment; }

std::string GgufHeader(const GgufKeys& keys, std::span<const TensorHeader> tensors) {
  std::string out = "GGUF";
  Append<uint32_t>(&out, 3);
  Append<uint64_t>(&out, tensors.size());
  Append(&out, keys.count());
  out += keys.bytes();
  uint64_t offset = 0;
  for (const TensorHeader& tensor : tensors) {
    AppendText(&out, tensor.name);
    Append(&out, uint32_t(tensor.shape.size()));
    for (auto n = tensor.shape.rbegin(); n != tensor.shape.rend(); ++n) Append(&out, uint64_t(*n));
    Append(&out, tensor.type);
    Append(&out, offset);
    offset += GgufPadded(tensor.Bytes());
  }
  out.resize(GgufPadded(out.size()));
  return out;
}

std::string SafetensorsHeader(std::span<const TensorHeader> tensors) {
  nlohmann::ordered_json json{{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const TensorHeader& tensor : tensors) {
    const uint64_t end = offset + tensor.Bytes();
    json[tensor.name] = {
        {"dtype", InfoOf(tensor.type).name}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // safetensors' own writer aligns the data to 8 bytes
  std::string out;
  AppendText(&out, text);
  return out;
}

}  // namespace dspark

#include <optional>
#include <type_traits>

#include "load/gguf.h"
#include "load/printable.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

// One element as T; nothing when its type is of another kind or its value does not fit.
std::optional<int64_t> IntegerAt(const GgufValue& value, uint64_t i) {
  switch (value.type) {
    case GgufType::kU8:
      return value.bytes[i];
    case GgufType::kI8:
      return int8_t(value.bytes[i]);
    case GgufType::kU16:
      return LoadUnaligned<uint16_t>(&value.bytes[i * 2]);
    case GgufType::kI16:
      return LoadUnaligned<int16_t>(&value.bytes[i * 2]);
    case GgufType::kU32:
      return LoadUnaligned<uint32_t>(&value.bytes[i * 4]);
    case GgufType::kI32:
      return LoadUnaligned<int32_t>(&value.bytes[i * 4]);
    case GgufType::kI64:
      return LoadUnaligned<int64_t>(&value.bytes[i * 8]);
    case GgufType::kU64: {
      const uint64_t number = LoadUnaligned<uint64_t>(&value.bytes[i * 8]);
      if (number > uint64_t(INT64_MAX)) return {};
      return int64_t(number);
    }
    default:
      return {};
  }
}

std::optional<double> RealAt(const GgufValue& value, uint64_t i) {
  if (value.type == GgufType::kF32) return LoadUnaligned<float>(&value.bytes[i * 4]);
  if (value.type == GgufType::kF64) return LoadUnaligned<double>(&value.bytes[i * 8]);
  return {};
}

std::optional<bool> BoolAt(const GgufValue& value, uint64_t i) {
  if (value.type != GgufType::kBool) return {};
  return value.bytes[i] != 0;
}

std::optional<std::string_view> StringAt(const GgufValue& value, uint64_t i) {
  if (value.type != GgufType::kString) return {};
  return value.strings[i];
}

template <class T>
struct Kind;
template <>
struct Kind<int64_t> {
  static constexpr auto kAt = IntegerAt;
  static constexpr std::string_view kName = "whole number (below 2^63)";
};
template <>
struct Kind<double> {
  static constexpr auto kAt = RealAt;
  static constexpr std::string_view kName = "f32 or f64";
};
template <>
struct Kind<bool> {
  static constexpr auto kAt = BoolAt;
  static constexpr std::string_view kName = "bool";
};
template <>
struct Kind<std::string_view> {
  static constexpr auto kAt = StringAt;
  static constexpr std::string_view kName = "string";
};

Error WrongKind(const std::string& path, std::string_view key, const GgufValue& value,
                std::string_view expected) {
  return MakeError("{}: metadata key {} is {} {}, expected {}; convert the model again", path, Printable(key),
                   value.is_array ? "an array of" : "of type", GgufTypeName(value.type), expected);
}

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

}  // namespace

std::string_view GgufTypeName(GgufType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  return uint32_t(type) < std::size(kNames) ? kNames[uint32_t(type)] : "unknown";
}

std::string GgufElementText(const GgufValue& value, uint64_t i) {
  if (const auto text = StringAt(value, i)) return std::string(*text);
  if (const auto number = IntegerAt(value, i)) return fmt::format("{}", *number);
  if (const auto number = RealAt(value, i)) return fmt::format("{}", float(*number));
  if (const auto flag = BoolAt(value, i)) return *flag ? "true" : "false";
  return fmt::format("{}", LoadUnaligned<uint64_t>(&value.bytes[i * 8]));  // beyond int64
}

const GgufValue* Gguf::FindKey(std::string_view key) const {
  for (const auto& [name, value] : metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

const TensorView* Gguf::FindTensor(std::string_view name) const {
  for (const TensorView& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

template <class T>
Result<T> Gguf::Get(std::string_view key) const {
  const GgufValue* value = FindKey(key);
  if (!value) {
    return MakeError("{}: metadata key {} is missing; the file is not a complete model", path,
                     Printable(key));
  }
  if constexpr (IsVector<T>::value) {
    using Element = typename T::value_type;
    if (!value->is_array)
      return WrongKind(path, key, *value, fmt::format("an array of {}", Kind<Element>::kName));
    T elements;
    elements.reserve(value->count);
    for (uint64_t i = 0; i < value->count; ++i) {
      const auto element = Kind<Element>::kAt(*value, i);
      if (!element) return WrongKind(path, key, *value, fmt::format("an array of {}", Kind<Element>::kName));
      elements.push_back(*element);
    }
    return elements;
  } else {
    const auto element = value->is_array ? std::nullopt : Kind<T>::kAt(*value, 0);
    if (!element) return WrongKind(path, key, *value, Kind<T>::kName);
    return T(*element);
  }
}

template Result<int64_t> Gguf::Get(std::string_view) const;
template Result<double> Gguf::Get(std::string_view) const;
template Result<bool> Gguf::Get(std::string_view) const;
template Result<std::string_view> Gguf::Get(std::string_view) const;
template Result<std::vector<int64_t>> Gguf::Get(std::string_view) const;
template Result<std::vector<double>> Gguf::Get(std::string_view) const;
template Result<std::vector<std::string_view>> Gguf::Get(std::string_view) const;

}  // namespace dspark

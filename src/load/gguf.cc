#include "load/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "load/printable.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

// Limits of the specification (names) and of ggml (dimensions).
constexpr size_t kMaxTensorName = 64;
constexpr uint32_t kMaxDims = 4;

// The least a record can take in the file: bounds what a count may claim.
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;           // key length, type, a one-byte value
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;  // name length, n_dims, one dim, type, offset

// Bytes per value; 0 for strings, arrays and unknown types.
uint64_t SizeOf(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

// Takes values from the front of the file; what does not fit is refused and leaves the position alone.
class Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  bool Take(uint64_t size, std::span<const uint8_t>* out) {
    if (size > left()) return false;
    *out = bytes_.subspan(position_, size);
    position_ += size;
    return true;
  }

  template <class T>
  bool Read(T* out) {
    std::span<const uint8_t> raw;
    if (!Take(sizeof(T), &raw)) return false;
    *out = LoadUnaligned<T>(raw.data());
    return true;
  }

  bool ReadString(std::string_view* out) {
    uint64_t length;
    std::span<const uint8_t> raw;
    if (!Read(&length) || !Take(length, &raw)) return false;
    *out = {reinterpret_cast<const char*>(raw.data()), raw.size()};
    return true;
  }

 private:
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
};

// ggml's names of the types we do not read, so that a message says "Q4_K" and not just 12.
std::string_view NameOfUnsupported(uint32_t id) {
  constexpr std::pair<uint32_t, std::string_view> kNames[] = {
      {6, "Q5_0"},    {7, "Q5_1"},     {9, "Q8_1"},   {10, "Q2_K"},   {11, "Q3_K"},
      {12, "Q4_K"},   {13, "Q5_K"},    {14, "Q6_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
      {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
      {22, "IQ2_S"},  {23, "IQ4_XS"},  {24, "I8"},    {25, "I16"},    {26, "I32"},
      {28, "F64"},    {29, "IQ1_M"},   {34, "TQ1_0"}, {35, "TQ2_0"},  {39, "MXFP4"}};
  for (const auto& [known, name] : kNames) {
    if (known == id) return name;
  }
  return "unknown";
}

std::string SupportedTypes() {
  std::string names;
  for (int32_t id = 0; id < 64; ++id) {
    const TensorTypeInfo* info = FindTensorType(id);
    if (info && info->dequantize) names += (names.empty() ? "" : ", ") + std::string(info->name);
  }
  return names;
}

class Parser {
 public:
  Parser(std::span<const uint8_t> file, const std::string& path) : file_(file), cursor_(file) {
    gguf_.path = path;
  }

  Result<Gguf> Run() {
    DSPARK_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < entry_count_; ++i) DSPARK_RETURN_IF_ERROR(ReadEntry(i));
    DSPARK_RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < tensor_count_; ++i) DSPARK_RETURN_IF_ERROR(ReadTensorInfo(i));
    DSPARK_RETURN_IF_ERROR(PlaceTensors());
    DSPARK_RETURN_IF_ERROR(CheckDisjoint());
    return std::move(gguf_);
  }

 private:
  // A tensor's place in the data section, as claimed.
  struct Extent {
    uint64_t offset, size;
  };

  const std::string& path() const { return gguf_.path; }

  Error EndsInside(const std::string& what) const {
    return MakeError("{}: the file ends inside {} (at byte {} of {}); the download is probably incomplete",
                     path(), what, cursor_.position(), file_.size());
  }

  Status ReadHeader() {
    uint32_t magic;
    if (!cursor_.Read(&magic) || !LooksLikeGguf(file_)) {
      return MakeError("{}: not a GGUF file (it does not begin with \"GGUF\")", path());
    }
    if (!cursor_.Read(&gguf_.version)) return EndsInside("the header");
    if (gguf_.version != 0 && (gguf_.version & 0xffff) == 0) {
      return MakeError("{}: a big-endian GGUF file; only little-endian ones can be read, convert it", path());
    }
    if (gguf_.version != 2 && gguf_.version != 3) {
      return MakeError("{}: GGUF version {} cannot be read, only 2 and 3; convert the model again", path(),
                       gguf_.version);
    }
    if (!cursor_.Read(&tensor_count_) || !cursor_.Read(&entry_count_)) return EndsInside("the header");
    DSPARK_RETURN_IF_ERROR(CheckCount("tensors", tensor_count_, kMinTensorBytes));
    return CheckCount("metadata keys", entry_count_, kMinEntryBytes);
  }

  Status CheckCount(std::string_view what, uint64_t count, uint64_t min_bytes) const {
    if (count <= cursor_.left() / min_bytes) return {};
    return MakeError(
        "{}: the header claims {} {}, more than the file's {} bytes can hold; the file is damaged or "
        "its download incomplete",
        path(), count, what, file_.size());
  }

  Status ReadEntry(uint64_t index) {
    std::string_view key;
    if (!cursor_.ReadString(&key)) return EndsInside(fmt::format("the name of metadata key {}", index));
    if (key.empty())
      return MakeError("{}: metadata key {} has an empty name; the file is damaged", path(), index);
    if (!keys_.insert(key).second) {
      return MakeError("{}: metadata key {} occurs twice; the file is damaged", path(), Printable(key));
    }
    GgufValue value;
    DSPARK_RETURN_IF_ERROR(ReadValue(key, &value));
    gguf_.metadata.emplace_back(key, std::move(value));
    return {};
  }

  Status ReadValue(std::string_view key, GgufValue* value) {
    const auto inside = [&] {
      return EndsInside(fmt::format("the value of metadata key {}", Printable(key)));
    };
    if (!cursor_.Read(&value->type)) return inside();
    if (value->type == GgufType::kArray) {
      value->is_array = true;
      if (!cursor_.Read(&value->type) || !cursor_.Read(&value->count)) return inside();
      if (value->type == GgufType::kArray) {
        return MakeError("{}: metadata key {} is an array of arrays, which GGUF does not define", path(),
                         Printable(key));
      }
    }
    if (value->type == GgufType::kString) return ReadStrings(key, value);
    const uint64_t size = SizeOf(value->type);
    if (size == 0) {
      return MakeError(
          "{}: metadata key {} has the unknown value type {}; the file is damaged or newer than this "
          "program",
          path(), Printable(key), uint32_t(value->type));
    }
    if (value->count > cursor_.left() / size || !cursor_.Take(value->count * size, &value->bytes))
      return inside();
    if (value->type == GgufType::kBool &&
        std::ranges::any_of(value->bytes, [](uint8_t b) { return b > 1; })) {
      return MakeError("{}: metadata key {} is a bool that is neither 0 nor 1; the file is damaged", path(),
                       Printable(key));
    }
    return {};
  }

  Status ReadStrings(std::string_view key, GgufValue* value) {
    if (value->count > cursor_.left() / sizeof(uint64_t)) {
      return EndsInside(fmt::format("the value of metadata key {}", Printable(key)));
    }
    value->strings.resize(value->count);
    for (uint64_t i = 0; i < value->count; ++i) {
      if (!cursor_.ReadString(&value->strings[i])) {
        return EndsInside(fmt::format("string {} of metadata key {}", i, Printable(key)));
      }
    }
    return {};
  }

  Status ReadAlignment() {
    DSPARK_ASSIGN_OR_RETURN(const int64_t alignment, gguf_.GetOr<int64_t>("general.alignment", 32));
    if (alignment <= 0 || alignment > std::numeric_limits<int32_t>::max() ||
        (alignment & (alignment - 1)) != 0) {
      return MakeError(
          "{}: metadata key general.alignment is {}, not a power of two below 2^31; the file is damaged",
          path(), alignment);
    }
    gguf_.alignment = uint64_t(alignment);
    return {};
  }

  Status ReadTensorInfo(uint64_t index) {
    std::string_view name;
    if (!cursor_.ReadString(&name)) return EndsInside(fmt::format("the name of tensor {}", index));
    if (name.empty() || name.size() >= kMaxTensorName) {
      return MakeError("{}: tensor {} has a name of {} bytes (1 to {} are allowed); the file is damaged",
                       path(), index, name.size(), kMaxTensorName - 1);
    }
    if (!names_.insert(name).second) {
      return MakeError("{}: tensor {} occurs twice; the file is damaged", path(), Printable(name));
    }
    const auto inside = [&] {
      return EndsInside(fmt::format("the description of tensor {}", Printable(name)));
    };
    uint32_t dims, type;
    uint64_t ne[kMaxDims];
    Extent extent;
    if (!cursor_.Read(&dims)) return inside();
    if (dims == 0 || dims > kMaxDims) {
      return MakeError("{}: tensor {}: {} dimensions, 1 to {} are allowed; the file is damaged", path(),
                       Printable(name), dims, kMaxDims);
    }
    for (uint32_t i = 0; i < dims; ++i) {
      if (!cursor_.Read(&ne[i])) return inside();
    }
    if (!cursor_.Read(&type) || !cursor_.Read(&extent.offset)) return inside();
    DSPARK_RETURN_IF_ERROR(MeasureTensor(name, {ne, dims}, type, &extent.size));
    std::vector<int64_t> shape(ne, ne + dims);
    std::ranges::reverse(shape);
    gguf_.tensors.push_back({std::string(name), TensorType(type), std::move(shape), {}});
    extents_.push_back(extent);
    return {};
  }

  // Bytes of a tensor of the given shape (innermost first) and type.
  Status MeasureTensor(std::string_view name, std::span<const uint64_t> ne, uint32_t type,
                       uint64_t* size) const {
    const auto fail = [&](const std::string& what) {
      return MakeError("{}: tensor {}: {}", path(), Printable(name), what);
    };
    const TensorTypeInfo* info = type <= INT32_MAX ? FindTensorType(int32_t(type)) : nullptr;
    if (!info) {
      return fail(fmt::format("type {} ({}) is not supported; requantise the model to one of {}", type,
                              NameOfUnsupported(type), SupportedTypes()));
    }
    const uint64_t block = uint64_t(info->block_values);
    if (ne[0] % block != 0) {
      return fail(fmt::format("rows of {} values are not a multiple of {}'s block of {}; the file is damaged",
                              ne[0], info->name, block));
    }
    *size = uint64_t(info->block_bytes);
    for (size_t i = 0; i < ne.size(); ++i) {
      if (ne[i] == 0) return fail(fmt::format("dimension {} is 0; the file is damaged", i));
      if (__builtin_mul_overflow(*size, i == 0 ? ne[0] / block : ne[i], size) || *size > INT64_MAX) {
        return fail("the shape is larger than any file; the file is damaged");
      }
    }
    return {};
  }

  Status PlaceTensors() {
    // alignment < 2^31 and position <= file size: no overflow.
    gguf_.data_start = (cursor_.position() + gguf_.alignment - 1) / gguf_.alignment * gguf_.alignment;
    const uint64_t room = file_.size() - std::min<uint64_t>(gguf_.data_start, file_.size());
    for (size_t i = 0; i < extents_.size(); ++i) {
      const auto [offset, size] = extents_[i];
      TensorView& tensor = gguf_.tensors[i];
      if (offset % gguf_.alignment != 0) {
        return MakeError(
            "{}: tensor {}: offset {} is not a multiple of the alignment {}; the file is damaged", path(),
            Printable(tensor.name), offset, gguf_.alignment);
      }
      if (offset > room) {
        return MakeError(
            "{}: tensor {}: offset {} is past the end of the file ({} bytes); the download is probably "
            "incomplete",
            path(), Printable(tensor.name), offset, file_.size());
      }
      if (size > room - offset) {
        return MakeError(
            "{}: tensor {}: its {} bytes at offset {} reach past the end of the file ({} bytes); the "
            "download is probably incomplete",
            path(), Printable(tensor.name), size, offset, file_.size());
      }
      tensor.bytes = file_.subspan(gguf_.data_start + offset, size);
    }
    return {};
  }

  // Writers lay tensors one after the other; two that share bytes are a sign of a forged or broken file.
  Status CheckDisjoint() const {
    std::vector<size_t> order(extents_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, {}, [&](size_t i) { return extents_[i].offset; });
    for (size_t i = 1; i < order.size(); ++i) {
      const size_t a = order[i - 1], b = order[i];
      if (extents_[a].offset + extents_[a].size > extents_[b].offset) {
        return MakeError("{}: tensors {} and {} overlap; the file is damaged", path(),
                         Printable(gguf_.tensors[a].name), Printable(gguf_.tensors[b].name));
      }
    }
    return {};
  }

  std::span<const uint8_t> file_;
  Cursor cursor_;
  Gguf gguf_;
  uint64_t tensor_count_ = 0, entry_count_ = 0;
  std::unordered_set<std::string_view> keys_, names_;
  std::vector<Extent> extents_;  // of gguf_.tensors
};

}  // namespace

Result<Gguf> ParseGguf(std::span<const uint8_t> file, const std::string& path) {
  return Parser(file, path).Run();
}

bool LooksLikeGguf(std::span<const uint8_t> file) {
  constexpr std::string_view kMagic = "GGUF";
  return file.size() >= kMagic.size() && std::memcmp(file.data(), kMagic.data(), kMagic.size()) == 0;
}

Result<GgufFile> OpenGgufFile(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  if (!LooksLikeGguf(file.bytes())) {
    return MakeError(
        "{}: neither a GGUF file nor a Hugging Face directory; give a .gguf file or the directory with "
        "config.json",
        path);
  }
  DSPARK_ASSIGN_OR_RETURN(Gguf gguf, ParseGguf(file.bytes(), path));
  return GgufFile{std::move(file), std::move(gguf)};
}

}  // namespace dspark

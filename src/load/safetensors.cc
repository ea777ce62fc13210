#include "load/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "load/printable.h"
#include "load/unaligned.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;

struct Dtype {
  std::string_view name;
  uint64_t bytes;
  std::optional<TensorType> type;
};

constexpr Dtype kDtypes[] = {
    {"F32", 4, TensorType::kF32},
    {"F16", 2, TensorType::kF16},
    {"BF16", 2, TensorType::kBF16},
    {"I64", 8, TensorType::kI64},
    {"F64", 8, {}},
    {"I32", 4, {}},
    {"I16", 2, {}},
    {"I8", 1, {}},
    {"U64", 8, {}},
    {"U32", 4, {}},
    {"U16", 2, {}},
    {"U8", 1, {}},
    {"BOOL", 1, {}},
    {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},
    {"F8_E8M0", 1, {}},
};

// The JSON with duplicate keys noticed, which nlohmann's tree would silently drop.
Result<Json> ParseHeader(std::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> open_objects;
  std::string twice;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == Json::parse_event_t::object_end) open_objects.pop_back();
    if (event == Json::parse_event_t::key && !open_objects.back().insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json header = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) {
    return MakeError("{}: the safetensors header is not a JSON object; the file is damaged", path);
  }
  if (!twice.empty())
    return MakeError("{}: {} occurs twice in the header; the file is damaged", path, Printable(twice));
  return header;
}

// The whole numbers of a JSON array; nothing when it is anything else.
std::optional<std::vector<int64_t>> WholeNumbers(const Json& json) {
  if (!json.is_array()) return {};
  std::vector<int64_t> numbers;
  for (const Json& item : json) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > uint64_t(INT64_MAX)) return {};
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

Result<SafeTensor> ReadTensor(const std::string& name, const Json& entry, std::span<const uint8_t> data,
                              const std::string& path) {
  const auto fail = [&](const std::string& what) {
    return MakeError("{}: tensor {}: {}", path, Printable(name), what);
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry.contains("data_offsets")) {
    return fail("no dtype, shape and data_offsets; the file is damaged");
  }
  const std::string dtype_name = entry["dtype"].get<std::string>();
  const auto* dtype = std::ranges::find(kDtypes, std::string_view(dtype_name), &Dtype::name);
  if (dtype == std::end(kDtypes))
    return fail(fmt::format("dtype {} is not supported", Printable(dtype_name)));
  const auto shape = WholeNumbers(entry["shape"]), offsets = WholeNumbers(entry["data_offsets"]);
  if (!shape) return fail("the shape is not a list of whole numbers; the file is damaged");
  if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
    return fail("data_offsets is not a [begin, end] pair; the file is damaged");
  }
  const uint64_t begin = uint64_t((*offsets)[0]), end = uint64_t((*offsets)[1]);
  if (end > data.size()) {
    return fail(
        fmt::format("its end {} is past the end of the data ({} bytes); the download is probably incomplete",
                    end, data.size()));
  }
  uint64_t size = dtype->bytes;
  for (const int64_t n : *shape) {
    if (__builtin_mul_overflow(size, uint64_t(n), &size)) return fail("the shape is larger than any file");
  }
  if (size != end - begin) {
    return fail(fmt::format("the shape takes {} bytes but data_offsets give {}; the file is damaged", size,
                            end - begin));
  }
  return SafeTensor{name, dtype->name, dtype->type, *shape, data.subspan(begin, size)};
}

Status CheckFilled(const std::vector<SafeTensor>& tensors, std::span<const uint8_t> data,
                   const std::string& path) {
  const uint8_t* next = data.data();
  for (const SafeTensor& tensor : tensors) {
    if (tensor.bytes.data() != next) {
      return MakeError("{}: tensor {} {} before it; the file is damaged", path, Printable(tensor.name),
                       tensor.bytes.data() < next ? "overlaps the one" : "leaves a hole");
    }
    next += tensor.bytes.size();
  }
  if (next != data.data() + data.size()) {
    return MakeError("{}: {} bytes after the last tensor; the file is damaged", path,
                     data.data() + data.size() - next);
  }
  return {};
}

}  // namespace

const SafeTensor* Safetensors::Find(std::string_view name) const {
  const auto it = std::ranges::find(tensors, name, &SafeTensor::name);
  return it == tensors.end() ? nullptr : &*it;
}

Result<Safetensors> ParseSafetensors(std::span<const uint8_t> file, const std::string& path) {
  if (file.size() < sizeof(uint64_t)) {
    return MakeError("{}: shorter than a safetensors header; the download is probably incomplete", path);
  }
  const uint64_t length = LoadUnaligned<uint64_t>(file.data());
  if (length > kMaxHeader) {
    return MakeError("{}: a header of {} bytes; this is not a safetensors file", path, length);
  }
  if (length > file.size() - sizeof(length)) {
    return MakeError(
        "{}: the file ends inside its header ({} of {} bytes); the download is probably incomplete", path,
        file.size() - sizeof(length), length);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof(length), length);
  DSPARK_ASSIGN_OR_RETURN(const Json header, ParseHeader(text, path));
  const auto data = file.subspan(sizeof(length) + length);
  Safetensors result;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    DSPARK_ASSIGN_OR_RETURN(SafeTensor tensor, ReadTensor(name, entry, data, path));
    result.tensors.push_back(std::move(tensor));
  }
  // Empty tensors first where several begin at one place, so that the check below sees them in file order.
  std::ranges::sort(result.tensors, {},
                    [](const SafeTensor& t) { return std::pair(t.bytes.data(), t.bytes.size()); });
  DSPARK_RETURN_IF_ERROR(CheckFilled(result.tensors, data, path));
  return result;
}

}  // namespace dspark

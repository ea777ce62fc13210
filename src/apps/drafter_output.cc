#include "apps/drafter_output.h"

#include <cstring>

#include "core/float16.h"
#include "kernels/quantize.h"

namespace dspark {
namespace {

// Row of the source that becomes row r.
int64_t SourceRow(int64_t r, int head_dim) {
  if (head_dim == 0) return r;
  const int64_t head = r / head_dim * head_dim, i = r % head_dim;
  return head + i % 2 * (head_dim / 2) + i / 2;
}

size_t RowBytes(const TensorView& tensor) {
  const TensorTypeInfo& info = InfoOf(tensor.type);
  return size_t(tensor.shape.back() / info.block_values) * size_t(info.block_bytes);
}

void ReadRow(const TensorView& tensor, size_t row, std::vector<float>* values) {
  values->resize(size_t(tensor.shape.back()));
  Dequantize(tensor.type, &tensor.bytes[row * RowBytes(tensor)], tensor.shape.back(), values->data());
}

bool IsQuantized(TensorType type) { return InfoOf(type).block_values > 1; }

void AppendBlock(TensorType type, const float* values, std::vector<uint8_t>* out) {
  const BlockLevels block =
      QuantizeWeights(type == TensorType::kQ8_0 ? WeightFormat::kInt8 : WeightFormat::kInt4, values);
  out->insert(out->end(), {uint8_t(block.scale), uint8_t(block.scale >> 8)});
  if (type == TensorType::kQ8_0) {
    for (const uint8_t level : block.level) out->push_back(level ^ 0x80);
    return;
  }
  for (int j = 0; j < 16; ++j) out->push_back(uint8_t(block.level[j] | block.level[j + 16] << 4));
}

// A row in another type.
void Encode(TensorType type, std::span<const float> row, std::vector<uint8_t>* out) {
  const auto append16 = [&](uint16_t v) { out->insert(out->end(), {uint8_t(v), uint8_t(v >> 8)}); };
  if (type == TensorType::kF32) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(row.data());
    out->insert(out->end(), bytes, bytes + row.size_bytes());
  } else if (type == TensorType::kF16) {
    for (const float v : row) append16(FloatToHalf(v));
  } else if (type == TensorType::kBF16) {
    for (const float v : row) append16(FloatToBf16(v));
  } else {
    for (size_t i = 0; i < row.size(); i += 32) AppendBlock(type, &row[i], out);
  }
}

}  // namespace

const TensorView* OfTarget(const TensorSource* target, std::string_view name) {
  if (!target) return nullptr;
  const TensorView* tensor = target->Find(name);
  return tensor || name != "output.weight" ? tensor : target->Find("token_embd.weight");
}

bool SameValues(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape) return false;
  std::vector<float> x, y;
  for (size_t row = 0; row < a.bytes.size() / RowBytes(a); ++row) {
    ReadRow(a, row, &x);
    ReadRow(b, row, &y);
    if (std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

Result<std::vector<OutputTensor>> PlanTensors(const DrafterFiles& drafter, const TensorSource* target,
                                              const TensorShapes& shapes,
                                              FunctionRef<TensorType(const std::vector<int64_t>&)> type_of) {
  std::vector<OutputTensor> plan;
  for (const auto& [name, shape] : shapes) {
    const TensorView* source = drafter.weights->Find(name);
    if (!source) source = OfTarget(target, name);
    if (!source) {
      return MakeError("{}: has no tensor {} of its own; give --target, the model it drafts for",
                       drafter.path, name);
    }
    DSPARK_CHECK(source->shape == shape);
    const TensorType type = type_of(shape);
    if (IsQuantized(type) && IsQuantized(source->type) && type != source->type) {
      return MakeError(
          "{}: tensor {} is {} already and would be rounded twice as {}; convert the original drafter",
          drafter.path, name, InfoOf(source->type).name, InfoOf(type).name);
    }
    plan.push_back({{name, type, shape}, source});
  }
  return plan;
}

std::vector<TensorHeader> HeadersOf(const std::vector<OutputTensor>& plan) {
  std::vector<TensorHeader> headers;
  headers.reserve(plan.size());
  for (const OutputTensor& tensor : plan) headers.push_back(tensor.header);
  return headers;
}

void WriteTensor(const OutputTensor& tensor, AtomicFile* file) {
  const TensorView& source = *tensor.source;
  const size_t row_bytes = RowBytes(source), rows = source.bytes.size() / row_bytes;
  std::vector<float> values;
  std::vector<uint8_t> encoded;
  for (size_t r = 0; r < rows; ++r) {
    const auto row = size_t(SourceRow(int64_t(r), tensor.interleave_heads_of));
    if (tensor.header.type == source.type) {
      file->Write(source.bytes.subspan(row * row_bytes, row_bytes));
      continue;
    }
    ReadRow(source, row, &values);
    encoded.clear();
    Encode(tensor.header.type, values, &encoded);
    file->Write(encoded);
  }
}

}  // namespace dspark

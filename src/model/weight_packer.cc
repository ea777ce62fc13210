#include "model/weight_packer.h"

#include <algorithm>

#include "load/printable.h"

namespace dspark {
namespace {

Result<const TensorView*> Find(const TensorSource& source, const std::string& name,
                               const std::vector<int64_t>& shape) {
  const TensorView* tensor = source.Find(name);
  if (!tensor) {
    return MakeError("{}: tensor {} is missing; the file is incomplete or of another architecture",
                     source.path(), name);
  }
  if (tensor->shape != shape) {
    return MakeError(
        "{}: tensor {} has shape [{}], expected [{}] from the model's sizes; the file is inconsistent",
        source.path(), tensor->name, fmt::join(tensor->shape, ", "), fmt::join(shape, ", "));
  }
  if (!InfoOf(tensor->type).dequantize) {
    return MakeError("{}: tensor {} holds {}, not weights; the file is inconsistent", source.path(),
                     tensor->name, InfoOf(tensor->type).name);
  }
  return tensor;
}

// What a matrix is packed as: see PackSlots.
Result<WeightFormat> FormatOf(const MatrixSlot& slot, const TensorView& tensor,
                              std::optional<WeightFormat> asked, const std::string& path) {
  if (slot.format) return *slot.format;
  const WeightFormat own = PackedFormatOf(tensor.type);
  if (!asked || *asked == own) return own;
  if (!IsQuantized(*asked)) return *asked;
  if (slot.k % 32 != 0) return own;
  if (*asked == WeightFormat::kInt8 || slot.vocabulary) return WeightFormat::kInt8;
  if (own == WeightFormat::kInt8) {
    return MakeError(
        "{}: tensor {} is {}; to 4 bits it would be rounded twice: take a file in F16, BF16 or F32, or "
        "weights "
        "int8",
        path, Printable(tensor.name), InfoOf(tensor.type).name);
  }
  return IsQuantized(own) ? own : *asked;
}

// Fills one matrix on all workers, then gives its pages of the file back.
void FillMatrix(const TensorSource& source, const TensorView& tensor, const MatrixSlot& slot,
                ThreadPool& pool) {
  const size_t row_bytes = tensor.bytes.size() / slot.n;
  const bool as_it_is = PackedFormatOf(tensor.type) == slot.matrix->format();
  pool.Run([&](Worker& worker) {
    const Range groups = worker.Share((slot.n + 15) / 16);
    std::vector<float> values(as_it_is ? 0 : slot.k);
    for (int g = groups.begin; g < groups.end; ++g) {
      const uint8_t* bytes = tensor.bytes.data() + size_t(g) * 16 * row_bytes;
      const int rows = std::min(16, slot.n - g * 16);
      if (as_it_is) {
        slot.matrix->SetRowGroup(g, tensor.type, bytes, row_bytes, rows);
        continue;
      }
      for (int r = 0; r < rows; ++r) {
        Dequantize(tensor.type, bytes + size_t(r) * row_bytes, slot.k, values.data());
        slot.matrix->SetRowFromFloats(g * 16 + r, values.data());
      }
    }
  });
  source.Release(tensor);
}

// The tensor of a vector: a row of a matrix is one too (conf_proj.weight).
Result<const TensorView*> FindVector(const TensorSource& source, const VectorSlot& slot) {
  const TensorView* tensor = source.Find(slot.name);
  if (tensor && tensor->shape.size() == 2) return Find(source, slot.name, {1, slot.n});
  return Find(source, slot.name, {slot.n});
}

Status FillTable(const TensorSource& source, const TableSlot& slot, ThreadPool& pool,
                 std::optional<WeightFormat> asked) {
  DSPARK_ASSIGN_OR_RETURN(const TensorView* tensor, Find(source, slot.name, {slot.n, slot.k}));
  const WeightFormat format = asked.value_or(PackedFormatOf(tensor->type));
  *slot.table = RowTable(slot.n, slot.k, format == WeightFormat::kF32);
  const size_t row_bytes = tensor->bytes.size() / size_t(slot.n);
  pool.Run([&](Worker& worker) {
    const Range rows = worker.Share(slot.n);
    std::vector<float> values(size_t(slot.k));
    for (int r = rows.begin; r < rows.end; ++r) {
      Dequantize(tensor->type, tensor->bytes.data() + size_t(r) * row_bytes, slot.k, values.data());
      slot.table->SetRow(r, values.data());
    }
  });
  source.Release(*tensor);
  return {};
}

}  // namespace

Result<Buffer<uint8_t>> PackSlots(const TensorSource& source, const WeightSlots& slots, ThreadPool& pool,
                                  std::optional<WeightFormat> asked) {
  for (const VectorSlot& slot : slots.vectors) {
    DSPARK_ASSIGN_OR_RETURN(const TensorView* tensor, FindVector(source, slot));
    slot.values->resize(size_t(slot.n));
    Dequantize(tensor->type, tensor->bytes.data(), slot.n, slot.values->data());
  }
  for (const TableSlot& slot : slots.tables) DSPARK_RETURN_IF_ERROR(FillTable(source, slot, pool, asked));

  const size_t count = slots.matrices.size();
  std::vector<const TensorView*> tensors(count);
  std::vector<WeightFormat> formats(count);
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    const MatrixSlot& slot = slots.matrices[i];
    DSPARK_ASSIGN_OR_RETURN(tensors[i], Find(source, slot.name, {slot.n, slot.k}));
    DSPARK_ASSIGN_OR_RETURN(formats[i], FormatOf(slot, *tensors[i], asked, source.path()));
    bytes += PackedMatrix::StorageBytes(slot.n, slot.k, formats[i]);
  }
  Buffer<uint8_t> storage(bytes);
  size_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    const MatrixSlot& slot = slots.matrices[i];
    *slot.matrix = PackedMatrix(slot.n, slot.k, formats[i], storage.data() + offset);
    offset += slot.matrix->Bytes();
    FillMatrix(source, *tensors[i], slot, pool);
  }
  for (size_t i = 0; i < count; ++i) {
    slots.matrices[i].matrix->SetNext(*slots.matrices[(i + 1) % count].matrix);
  }
  return storage;
}

}  // namespace dspark

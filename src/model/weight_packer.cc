#include "model/weight_packer.h"

#include <algorithm>
#include <atomic>

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

// A matrix's tensor and what it is packed as.
struct BoundMatrix {
  const TensorView* tensor;
  WeightFormat format;
};

Result<std::vector<BoundMatrix>> Bind(const TensorSource& source, const WeightSlots& slots,
                                      std::optional<WeightFormat> asked) {
  std::vector<BoundMatrix> bound(slots.matrices.size());
  for (size_t i = 0; i < bound.size(); ++i) {
    const MatrixSlot& slot = slots.matrices[i];
    DSPARK_ASSIGN_OR_RETURN(bound[i].tensor, Find(source, slot.name, {slot.n, slot.k}));
    DSPARK_ASSIGN_OR_RETURN(bound[i].format, FormatOf(slot, *bound[i].tensor, asked, source.path()));
  }
  return bound;
}

size_t StorageBytes(const WeightSlots& slots, const std::vector<BoundMatrix>& bound) {
  size_t bytes = 0;
  for (size_t i = 0; i < bound.size(); ++i) {
    bytes += PackedMatrix::StorageBytes(slots.matrices[i].n, slots.matrices[i].k, bound[i].format);
  }
  return bytes;
}

Error NotFinite(const std::string& path, const TensorView& tensor) {
  return MakeError("{}: tensor {} holds NaN or infinity; the file is damaged, get it anew", path,
                   Printable(tensor.name));
}

// Fills one matrix on all workers, then gives its pages of the file back. False when a value is not finite.
bool FillMatrix(const TensorSource& source, const TensorView& tensor, const MatrixSlot& slot,
                ThreadPool& pool) {
  const size_t row_bytes = tensor.bytes.size() / slot.n;
  const bool as_it_is = PackedFormatOf(tensor.type) == slot.matrix->format();
  std::atomic<bool> finite = true;
  pool.Run([&](Worker& worker) {
    const Range groups = worker.Share((slot.n + 15) / 16);
    std::vector<float> values(as_it_is ? 0 : slot.k);
    for (int g = groups.begin; g < groups.end; ++g) {
      const uint8_t* bytes = tensor.bytes.data() + size_t(g) * 16 * row_bytes;
      const int rows = std::min(16, slot.n - g * 16);
      if (!AllFinite(tensor.type, bytes, int64_t(rows) * slot.k))
        finite.store(false, std::memory_order_relaxed);
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
  return finite;
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
  if (!AllFinite(tensor->type, tensor->bytes.data(), int64_t(slot.n) * slot.k)) {
    return NotFinite(source.path(), *tensor);
  }
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
    if (!AllFinite(tensor->type, tensor->bytes.data(), slot.n)) return NotFinite(source.path(), *tensor);
    slot.values->resize(size_t(slot.n));
    Dequantize(tensor->type, tensor->bytes.data(), slot.n, slot.values->data());
  }
  for (const TableSlot& slot : slots.tables) DSPARK_RETURN_IF_ERROR(FillTable(source, slot, pool, asked));

  DSPARK_ASSIGN_OR_RETURN(const std::vector<BoundMatrix> bound, Bind(source, slots, asked));
  Buffer<uint8_t> storage(StorageBytes(slots, bound));
  size_t offset = 0;
  const size_t count = bound.size();
  for (size_t i = 0; i < count; ++i) {
    const MatrixSlot& slot = slots.matrices[i];
    const auto& [tensor, format] = bound[i];
    *slot.matrix = PackedMatrix(slot.n, slot.k, format, storage.data() + offset);
    offset += slot.matrix->Bytes();
    if (!FillMatrix(source, *tensor, slot, pool)) return NotFinite(source.path(), *tensor);
  }
  for (size_t i = 0; i < count; ++i) {
    slots.matrices[i].matrix->SetNext(*slots.matrices[(i + 1) % count].matrix);
  }
  return storage;
}

Result<size_t> PackedBytes(const TensorSource& source, const WeightSlots& slots,
                           std::optional<WeightFormat> asked) {
  DSPARK_ASSIGN_OR_RETURN(const std::vector<BoundMatrix> bound, Bind(source, slots, asked));
  return StorageBytes(slots, bound);
}

}  // namespace dspark

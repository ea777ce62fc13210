// Fills packed matrices, lookup tables and vectors from a file's tensors: what all models and drafters load
// with.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/row_table.h"
#include "load/tensor_source.h"

namespace dspark {

// Tensors by llama.cpp's names and where they go.
struct MatrixSlot {
  std::string name;
  int n, k;
  PackedMatrix* matrix;
  bool vocabulary = false;  // embedding or head
  std::optional<WeightFormat> format =
      {};  // packed as this, whatever is asked; needs k % 32 == 0 if int8, int4
};

struct TableSlot {
  std::string name;
  int n, k;
  RowTable* table;
};

struct VectorSlot {
  std::string name;
  int n;  // of a tensor [n] or [1, n]
  std::vector<float>* values;
};

struct WeightSlots {
  std::vector<MatrixSlot> matrices;  // in the order a pass reads them
  std::vector<TableSlot> tables;
  std::vector<VectorSlot> vectors;
};

// Fills every slot on all workers and gives the file's pages back as it goes, so that the weights are
// resident once. Returns the memory of the matrices, one mapping in huge pages that must outlive them.
//
// `asked` quantises (or widens) the matrices; without it each keeps its file's precision. Three exceptions: a
// matrix whose rows are no whole blocks of 32 keeps the file's type when int8 or int4 is asked for; embedding
// and head are int8 when int4 is; a tensor of 4 bits stays as it is when int4 is. Tables are fp32 where the
// tensor is (or where it is asked for) and fp16 otherwise; vectors always fp32.
//
// Error: a missing tensor, one of another shape, one that holds NaN or infinity, or int4 asked of a tensor
// that the file already rounded to 8 bits: file, tensor, what to do.
Result<Buffer<uint8_t>> PackSlots(const TensorSource& source, const WeightSlots& slots, ThreadPool& pool,
                                  std::optional<WeightFormat> asked);

// Bytes of what PackSlots would return, from sizes alone. Error: as PackSlots.
Result<size_t> PackedBytes(const TensorSource& source, const WeightSlots& slots,
                           std::optional<WeightFormat> asked);

}  // namespace dspark

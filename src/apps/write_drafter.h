// Drafters written for others: a directory as DeepSpec keeps them (z-lab's form where slots predict their own
// token), or a GGUF for llama.cpp.
#pragma once

#include <string>

#include "core/result.h"
#include "core/tensor_type.h"
#include "load/drafter_files.h"
#include "load/gguf.h"
#include "load/model_config.h"

namespace dspark {

struct DrafterWriteOptions {
  // What matrices are stored as: F32 or BF16 in a directory; F32, F16, Q8_0 or Q4_0 in GGUF. Norms, biases
  // and the confidence head are F32 in GGUF always; rows that are no whole blocks are F16.
  TensorType type = TensorType::kF32;
  // The model it drafts for (CheckDrafterFits), if at hand: then the embedding and head that equal its own
  // are left out of a GGUF, and a directory gets those the drafter lacks.
  const TensorSource* target = nullptr;
  // Where a GGUF gets its tokenizer from, which llama.cpp wants; null: it gets none.
  const Gguf* tokenizer = nullptr;
  // GGUF: store them whatever the target has.
  bool with_embedding = false, with_head = false;
};

// Error: a drafter written to `path` cannot have matrices of this type.
Status CheckMatrixType(TensorType type, const std::string& path);

// Writes `drafter` to `path`: GGUF when it ends in .gguf, else a directory, which must not hold anything yet.
// What is at `path` is whole or untouched. Error: what the form cannot hold, or the file system's; one line.
Status WriteDrafter(const DrafterFiles& drafter, const DrafterWriteOptions& options, const std::string& path);

// The two forms (write_drafter_gguf.cc, write_drafter_directory.cc); `options.type` must suit the form.
Status WriteDrafterGguf(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                        const std::string& path);
Status WriteDrafterDirectory(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                             const std::string& path);

}  // namespace dspark

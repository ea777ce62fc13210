#include "apps/write_drafter.h"

namespace dspark {

Status WriteDrafter(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                    const std::string& path) {
  const bool gguf = path.ends_with(".gguf");
  const bool plain = options.type == TensorType::kF32 || options.type == TensorType::kBF16;
  if (gguf ? options.type == TensorType::kBF16 : !plain) {
    return MakeError("{}: matrices cannot be {} there; use {}", path, InfoOf(options.type).name,
                     gguf ? "f32, f16, q8_0 or q4_0" : "f32 or bf16");
  }
  return gguf ? WriteDrafterGguf(drafter, options, path) : WriteDrafterDirectory(drafter, options, path);
}

}  // namespace dspark

#include "apps/write_drafter.h"

namespace dspark {

Status CheckMatrixType(TensorType type, const std::string& path) {
  const bool gguf = path.ends_with(".gguf");
  const bool plain = type == TensorType::kF32 || type == TensorType::kBF16;
  if (gguf ? type != TensorType::kBF16 : plain) return {};
  return MakeError("{}: matrices cannot be {} there; use {}", path, InfoOf(type).name,
                   gguf ? "f32, f16, q8_0 or q4_0" : "f32 or bf16");
}

Status WriteDrafter(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                    const std::string& path) {
  DSPARK_RETURN_IF_ERROR(CheckMatrixType(options.type, path));
  return path.ends_with(".gguf") ? WriteDrafterGguf(drafter, options, path)
                                 : WriteDrafterDirectory(drafter, options, path);
}

}  // namespace dspark

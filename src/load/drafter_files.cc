#include "load/drafter_files.h"

#include <filesystem>

#include "load/drafter_gguf.h"
#include "load/drafter_hf.h"
#include "load/ngram_file.h"

namespace dspark {

namespace {

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

}  // namespace

Result<DrafterFiles> OpenDrafter(const std::string& path) {
  return IsDirectory(path) ? OpenDrafterDirectory(path) : OpenDrafterGguf(path);
}

bool LooksLikeDrafter(const std::string& path) {
  return IsDirectory(path) ? DirectoryLooksLikeDrafter(path)
                           : GgufLooksLikeDrafter(path) || LooksLikeNgramFile(path);
}

Status CheckDrafterFits(const DrafterFiles& drafter, const ModelConfig& target) {
  const DrafterConfig& c = drafter.config;
  const auto differ = [&](std::string_view what, int made_for, int has) {
    return MakeError(
        "{}: made for a target {} {}, but this target has {}; give the drafter of this very model",
        drafter.path, what, made_for, has);
  };
  if (c.target_vocab != target.vocab) return differ("with a vocabulary of", c.target_vocab, target.vocab);
  if (c.target_width != target.d_model) return differ("of width", c.target_width, target.d_model);
  if (c.target_layers > 0 && c.target_layers != target.layers) {
    return differ("with layers", c.target_layers, target.layers);
  }
  if (!c.taps.empty() && c.taps.back() >= target.layers - 1) {
    return MakeError(
        "{}: taps layer {}, but of this target's {} layers only 0 to {} can be tapped; give the drafter of "
        "this "
        "very model",
        drafter.path, c.taps.back(), target.layers, target.layers - 2);
  }
  return {};
}

}  // namespace dspark

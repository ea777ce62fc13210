// A drafter as a directory: config.json and model.safetensors as DeepSpec writes them, or z-lab.
#include <filesystem>

#include "apps/drafter_output.h"
#include "apps/write_drafter.h"
#include "load/drafter_json.h"
#include "load/drafter_tensors.h"

namespace dspark {
namespace {

Status CheckDirectoryHolds(const DrafterFiles& drafter) {
  const DrafterConfig& c = drafter.config;
  const auto fail = [&](std::string_view what) {
    return MakeError("{}: {}; a directory of DeepSpec's form cannot hold that, convert to .gguf instead",
                     drafter.path, what);
  };
  if (c.kind == DrafterKind::kMtp)
    return MakeError("{}: an MTP layer, for which there is no other form; use the directory", drafter.path);
  if (!c.draft_to_target.empty()) return fail("a reduced vocabulary");
  if (!c.backbone.qk_norm) return fail("a backbone without norms on q and k");
  if (c.fc_bias) return fail("a bias on fc");
  if (c.norm_before_residual) return fail("the normalised state in the residual stream");
  if (c.target_width != c.backbone.d_model) return fail("a width other than the target's");
  if (!c.backbone.rope_freq_divisors.empty()) return fail("scaled rope");
  if (!c.anchor_first && (c.markov != MarkovHead::kNone || c.confidence)) {
    return fail("Markov and confidence heads on slots that predict their own token");
  }
  return {};
}

Status WriteSafetensors(std::vector<OutputTensor> plan, const std::string& path) {
  for (OutputTensor& tensor : plan) tensor.header.name = DeepSpecTensorName(tensor.header.name);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(SafetensorsHeader(HeadersOf(plan)));
  for (const OutputTensor& tensor : plan) WriteTensor(tensor, &file);
  return file.Commit();
}

}  // namespace

Status WriteDrafterDirectory(const DrafterFiles& drafter, const DrafterWriteOptions& options,
                             const std::string& path) {
  namespace fs = std::filesystem;
  DrafterConfig c = drafter.config;
  DSPARK_RETURN_IF_ERROR(CheckDirectoryHolds(drafter));
  if (!c.anchor_first && c.target_layers == 0) {
    return MakeError(
        "{}: does not say how many layers its target has, which this form wants; convert the original",
        drafter.path);
  }
  c.own_embedding = c.own_head = c.anchor_first;  // z-lab's form has neither
  const auto type_of = [&](const std::vector<int64_t>&) { return options.type; };
  DSPARK_ASSIGN_OR_RETURN(std::vector<OutputTensor> plan,
                          PlanTensors(drafter, options.target, DrafterShapes(c), type_of));
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_empty(path, error)) {
    return MakeError("{}: is there already; remove it or choose another name", path);
  }
  const std::string staging = path + ".tmp";  // becomes `path` when it is complete
  const auto remove_staging = [&](Error reason) {
    fs::remove_all(staging, error);
    return reason;
  };
  fs::create_directories(staging, error);
  if (const Status status = WriteSafetensors(std::move(plan), staging + "/model.safetensors"); !status) {
    return remove_staging(status.error());
  }
  auto config = AtomicFile::Create(staging + "/config.json");
  if (!config) return remove_staging(config.error());
  config->Write(DeepSpecConfig(c, options.type).dump(2) + "\n");
  if (const Status status = config->Commit(); !status) return remove_staging(status.error());
  fs::rename(staging, path, error);
  if (error) return remove_staging(MakeError("{}: cannot be written: {}", path, error.message()));
  return {};
}

}  // namespace dspark

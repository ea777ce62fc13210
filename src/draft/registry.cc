#include "draft/registry.h"

#include "draft/block_drafter.h"

namespace dspark {

Result<std::unique_ptr<Drafter>> LoadDrafter(const DrafterFiles& files, const Target& target,
                                             ThreadPool& pool, const DrafterLimits& limits) {
  DSPARK_RETURN_IF_ERROR(CheckDrafterFits(files, target.config()));
  switch (files.config.kind) {
    case DrafterKind::kBlock:
      return LoadBlockDrafter(files, target, pool, limits);
    case DrafterKind::kEagle3:
    case DrafterKind::kMtp:
      break;
  }
  return MakeError("{}: this build does not run drafters of this kind ({})", files.path, files.config.form);
}

}  // namespace dspark

#include "draft/registry.h"

#include "core/check.h"
#include "draft/block_drafter.h"
#include "draft/eagle3.h"
#include "draft/mtp.h"

namespace dspark {

Result<std::unique_ptr<Drafter>> LoadDrafter(const DrafterFiles& files, const Target& target,
                                             ThreadPool& pool, const DrafterLimits& limits) {
  DSPARK_RETURN_IF_ERROR(CheckDrafterFits(files, target.config()));
  switch (files.config.kind) {
    case DrafterKind::kBlock:
      return LoadBlockDrafter(files, target, pool, limits);
    case DrafterKind::kEagle3:
      return Eagle3::Load(files, target, pool, limits);
    case DrafterKind::kMtp:
      return Mtp::Load(files, target, pool, limits);
  }
  CheckFailed(__FILE__, __LINE__, "unknown DrafterKind");
}

}  // namespace dspark

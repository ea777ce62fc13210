// dspark pull: fetches the default model.
#include <CLI/CLI.hpp>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/pull.h"

namespace dspark {

Command AddPull(CLI::App&) {
  return []() -> Result<int> {
    const PullOptions options;
    DSPARK_RETURN_IF_ERROR(PullDefaultModel(options, StderrProgress()));
    PrintOutput("{}\n", DefaultModelPath());
    return kExitOk;
  };
}

}  // namespace dspark

// dspark pull: fetches the default model.
#include <CLI/CLI.hpp>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/pull.h"

namespace dspark {

Command AddPull(CLI::App& app) {
  app.footer(
      "\nExamples:\n"
      "  dspark pull && dspark run \"Why is the sky blue?\"");
  return []() -> Result<int> {
    const PullOptions options;
    DSPARK_RETURN_IF_ERROR(PullDefaultModel(options, StderrProgress()));
    PrintOutput("{}\n", DefaultModelPath());
    return kExitOk;
  };
}

}  // namespace dspark

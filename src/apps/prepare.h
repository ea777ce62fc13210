// The subcommands of `dspark prepare`, each as Command AddX of apps/commands.h.
#pragma once

#include "apps/commands.h"

namespace dspark {

Command AddPrepareSplit(CLI::App& app);
Command AddPrepareCache(CLI::App& app);

}  // namespace dspark

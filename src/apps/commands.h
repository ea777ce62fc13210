// One entry per subcommand: adds its flags to the command line and returns what runs it.
//
// Exit codes of dspark: 0 done; 1 a file, model or request that does not work (one line on stderr says which
// and why); 2 a command line that makes no sense; 130 interrupted by Ctrl-C.
#pragma once

#include <functional>

#include "core/result.h"

namespace CLI {
class App;
}

namespace dspark {

inline constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130;

// Returns an exit code, or the Error that main prints as one line (exit code 1).
using Command = std::function<Result<int>()>;

Command AddRun(CLI::App& app);
Command AddBench(CLI::App& app);
Command AddBenchServe(CLI::App& app);  // bench serve
Command AddCalibrate(CLI::App& app);
Command AddConvert(CLI::App& app);
Command AddEval(CLI::App& app);
Command AddInfo(CLI::App& app);
Command AddPrepare(CLI::App& app);
Command AddPull(CLI::App& app);
Command AddServe(CLI::App& app);
Command AddSimulate(CLI::App& app);
Command AddTrain(CLI::App& app);

}  // namespace dspark

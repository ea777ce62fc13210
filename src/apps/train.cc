// dspark train: starts dspark-train, which alone links torch.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "apps/commands.h"

namespace dspark {
namespace {

Result<int> Run(const std::vector<std::string>& arguments) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "dspark-train").string();
  if (error || access(program.c_str(), X_OK) != 0) {
    return MakeError("{}: is not there; install libtorch-dev and build again (cmake -DDSPARK_BUILD_TRAIN=ON)",
                     program);
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return MakeError("{}: cannot be started: {}", program, std::strerror(errno));
}

}  // namespace

Command AddTrain(CLI::App& app) {
  app.set_help_flag();  // dspark-train's own help
  app.prefix_command();
  return [&app] { return Run(app.remaining()); };
}

}  // namespace dspark

// dspark train: counts a table drafter, or starts dspark-train, which alone links torch.
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/pull.h"
#include "apps/train_ngram.h"
#include "load/json_file.h"

namespace dspark {
namespace {

// A target that `dspark pull` gets, by its name, is the path where it lies: dspark-train knows no names.
Result<std::string> WithPath(const std::string& argument) {
  const std::string name = DefaultModelPackage().name;
  std::error_code ignored;
  if (argument != "target=" + name || std::filesystem::exists(name, ignored)) return argument;
  DSPARK_ASSIGN_OR_RETURN(const std::string path, FindDefaultModel());
  return "target=" + path;
}

Result<int> StartTrainer(std::vector<std::string> arguments) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "dspark-train").string();
  if (error || access(program.c_str(), X_OK) != 0) {
    return MakeError("{}: is not there; install libtorch-dev and build again (cmake -DDSPARK_BUILD_TRAIN=ON)",
                     program);
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (std::string& argument : arguments) {
    DSPARK_ASSIGN_OR_RETURN(argument, WithPath(argument));
  }
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return MakeError("{}: cannot be started: {}", program, std::strerror(errno));
}

// Also where dspark-train, which knows all kinds but ngram, is not built. What is no text is its to report.
Status CheckKind(const nlohmann::json& kind) {
  constexpr std::string_view kKinds[] = {"dspark", "dflash", "eagle3", "mtp", "ngram"};
  if (!kind.is_string() || std::ranges::count(kKinds, kind.get_ref<const std::string&>()) > 0) return {};
  return MakeError("configuration: kind is {}, expected one of {}", kind.dump(), fmt::join(kKinds, ", "));
}

// What cannot be read is dspark-train's to report.
Result<int> Run(std::vector<std::string> arguments) {
  const bool defaults = !arguments.empty() && arguments[0] == "--defaults";
  const auto keys = ReadJsonArguments({arguments.begin() + defaults, arguments.end()});
  const nlohmann::json kind = keys ? keys->value("kind", nlohmann::json()) : nlohmann::json();
  if (const Status known = CheckKind(kind); !known) {
    PrintMessage("dspark train: {}\n", known.error().text);
    return kExitUsage;
  }
  if (kind != "ngram") return StartTrainer(std::move(arguments));
  if (!defaults) return TrainNgram(*keys);
  PrintOutput("{}\n", NgramDefaults().dump(2));
  return kExitOk;
}

}  // namespace

Command AddTrain(CLI::App& app) {
  app.set_help_flag();  // dspark-train's own help
  app.prefix_command();
  return [&app] { return Run(app.remaining()); };
}

}  // namespace dspark

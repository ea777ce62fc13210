// dspark: lossless speculative decoding for large language models.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/output.h"

namespace {

// llama.cpp's users write -md; CLI11 knows only one-letter short flags.
std::vector<std::string> Arguments(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i)
    arguments.push_back(std::strcmp(argv[i], "-md") == 0 ? "--draft" : argv[i]);
  return arguments;  // reversed, as CLI11 wants them
}

int UsageError(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? "dspark" : "dspark " + chosen.front()->get_name();
  std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) && !chosen.empty())  // which lists them backwards
    text = fmt::format("does not expect {}", fmt::join(chosen.front()->remaining(), " "));
  if (chosen.empty() && argc > 1 && argv[1][0] != '-') text = std::string("there is no command ") + argv[1];
  for (char& c : text) c = c == '\n' ? ' ' : c;
  dspark::PrintMessage("{}: {}; see {} --help\n", command, text, command);
  return dspark::kExitUsage;
}

// A command's outcome, when all it printed has arrived, as the program's exit code.
int Finish(const dspark::Result<int>& result) {
  const dspark::Status written = result.ok() ? dspark::FlushOutput() : result.error();
  if (written.ok()) return result.value();
  dspark::PrintMessage("dspark: {}\n", written.error().text);
  return dspark::kExitFailed;
}

}  // namespace

int main(int argc, char** argv) {
  dspark::OpenStandardStreams();
  CLI::App app{
      "dspark: a real language model on your CPU, drafting ahead and verifying, exactly the model's output",
      "dspark"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "dspark " DSPARK_VERSION);
  app.footer(
      "\nStart with:\n"
      "  dspark pull                        get the default model (98 MB, once)\n"
      "  dspark run \"Why is the sky blue?\"  answer a prompt\n"
      "  dspark run                         chat in the terminal\n"
      "  dspark serve                       OpenAI's API, and a page at http://127.0.0.1:8080\n"
      "\nExit codes: 0 done, 1 a file or request that does not work, 2 bad command line, 130 interrupted.");
  std::map<CLI::App*, dspark::Command> commands;
  const auto add = [&](const char* name, const char* what, dspark::Command (*make)(CLI::App&)) {
    CLI::App* sub = app.add_subcommand(name, what);
    commands[sub] = make(*sub);
  };
  add("run", "Answer a prompt, or chat in the terminal", dspark::AddRun);
  add("serve", "Answer many at once, behind OpenAI's API", dspark::AddServe);
  add("bench", "Measure passes, or a server under load (bench serve)", dspark::AddBench);
  add("simulate", "Plan capacity: a server under load, from what was measured", dspark::AddSimulate);
  add("info", "Say what a model file is: shapes, types, memory", dspark::AddInfo);
  add("convert", "Write a drafter in another form", dspark::AddConvert);
  add("prepare", "Make training data: split, regenerate, cache", dspark::AddPrepare);
  add("eval", "Measure drafters on prompt sets, with a report", dspark::AddEval);
  add("calibrate", "Teach a drafter how sure it may be", dspark::AddCalibrate);
  add("pull", "Get the default model", dspark::AddPull);
  add("train", "Train a drafter for a model (--help: how)", dspark::AddTrain);

  try {
    app.parse(Arguments(argc, argv));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return Finish(app.exit(error));  // --help, --version
    return UsageError(app, error, argc, argv);
  }
  return Finish(commands[app.get_subcommands().front()]());
}

// dspark prepare: from conversations to what a drafter is trained on.
#include "apps/prepare.h"

#include <CLI/CLI.hpp>
#include <map>
#include <memory>

namespace dspark {

Command AddPrepare(CLI::App& app) {
  app.require_subcommand(1);
  const auto commands = std::make_shared<std::map<CLI::App*, Command>>();
  const auto add = [&](const char* name, const char* what, Command (*make)(CLI::App&)) {
    CLI::App* sub = app.add_subcommand(name, what);
    (*commands)[sub] = make(*sub);
  };
  add("split", "Conversations to train.jsonl and held_out.jsonl", AddPrepareSplit);
  add("regenerate", "Every assistant turn rewritten by the target", AddPrepareRegenerate);
  add("cache", "The target's hidden states for conversations, on disk", AddPrepareCache);
  app.footer(
      "\nExamples:\n"
      "  dspark prepare split chats.jsonl --out data\n"
      "  dspark prepare regenerate data/train.jsonl --out data/own.jsonl -m model.gguf\n"
      "  dspark prepare cache data/own.jsonl --out cache -m model.gguf");
  return [&app, commands] { return commands->at(app.get_subcommands().front())(); };
}

}  // namespace dspark

// dspark info: what a model file is.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/session.h"
#include "kernels/matmul.h"

namespace dspark {
namespace {

struct InfoOptions {
  std::string model;
  bool json = false, tensors = false;
};

std::string Megabytes(double bytes) { return fmt::format("{:.1f} MB", bytes / 1e6); }

}  // namespace

Command AddInfo(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  app.add_option("model,-m,--model", options->model, "A GGUF file or a Hugging Face directory [the default model]");
  app.add_flag("--tensors", options->tensors, "List every tensor");
  app.add_flag("--json", options->json, "One JSON object");
  return [options] { return Result<int>(kExitOk); };
}

}  // namespace dspark

// dspark info: what a model file is, and what running it takes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/session.h"
#include "load/model_listing.h"

namespace dspark {
namespace {

struct InfoOptions {
  std::string model;
  int context = 0;
  bool json = false, tensors = false, metadata = false;
};

struct TypeTotal {
  int tensors = 0;
  uint64_t bytes = 0;
};

// What running needs: the weights as packed, K/V in fp16 at that context, workspace. Planned from the sizes
// alone.
struct MemoryPlan {
  int context = 0;
  double weight_mb = 0, kv_mb = 0, kv_kb_per_token = 0;
};

MemoryPlan Plan(const ModelConfig& c, uint64_t tensor_bytes, int context) {
  MemoryPlan plan;
  plan.context = context > 0 ? context : std::min(c.max_context, kDefaultContext);
  const double per_token = 2.0 * c.layers * c.kv_heads * c.head_dim * KvElementBytes(KvType::kF16);
  plan.weight_mb = double(tensor_bytes) / 1e6;
  plan.kv_kb_per_token = per_token / 1e3;
  plan.kv_mb = per_token * plan.context / 1e6;
  return plan;
}

std::map<std::string, TypeTotal> TotalsByType(const ModelListing& listing) {
  std::map<std::string, TypeTotal> totals;
  for (const ListedTensor& tensor : listing.tensors) {
    ++totals[tensor.type].tensors;
    totals[tensor.type].bytes += tensor.bytes;
  }
  return totals;
}

nlohmann::json ToJson(const std::string& path, const ModelListing& listing, const ModelConfig& c,
                      const MemoryPlan& plan) {
  nlohmann::json json{{"path", path},
                      {"format", listing.format},
                      {"file_bytes", listing.file_bytes},
                      {"model",
                       {{"architecture", c.architecture},
                        {"name", c.name},
                        {"layers", c.layers},
                        {"d_model", c.d_model},
                        {"heads", c.heads},
                        {"kv_heads", c.kv_heads},
                        {"head_dim", c.head_dim},
                        {"d_ffn", c.d_ffn},
                        {"vocab", c.vocab},
                        {"max_context", c.max_context},
                        {"tied_embeddings", c.tied_embeddings},
                        {"eos", c.eos}}},
                      {"memory",
                       {{"context", plan.context},
                        {"weight_mb", plan.weight_mb},
                        {"kv_mb", plan.kv_mb},
                        {"kv_kb_per_token", plan.kv_kb_per_token}}}};
  for (const ListedKey& key : listing.metadata) {
    json["metadata"].push_back({{"key", key.key}, {"type", key.type}, {"value", key.value}});
  }
  for (const ListedTensor& tensor : listing.tensors) {
    json["tensors"].push_back(
        {{"name", tensor.name}, {"type", tensor.type}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  }
  return json;
}

void Print(const std::string& path, const ModelListing& listing, const ModelConfig& c, const MemoryPlan& plan,
           const InfoOptions& options) {
  PrintOutput("{}\n{}, {:.1f} MB, {} tensors", path, listing.format, double(listing.file_bytes) / 1e6,
              listing.tensors.size());
  for (const auto& [type, total] : TotalsByType(listing)) {
    PrintOutput("; {} × {} ({:.1f} MB)", total.tensors, type, double(total.bytes) / 1e6);
  }
  PrintOutput("\n\n{}{}{}\n", c.architecture, c.name.empty() ? "" : ": ", c.name);
  PrintOutput("  layers {}, width {}, feed-forward {}\n", c.layers, c.d_model, c.d_ffn);
  PrintOutput("  query heads {}, KV heads {}, head size {}\n", c.heads, c.kv_heads, c.head_dim);
  PrintOutput("  vocabulary {}{}, context {}\n", c.vocab, c.tied_embeddings ? " (tied)" : "", c.max_context);
  PrintOutput("  end tokens {}\n", fmt::join(c.eos, ", "));
  PrintOutput(
      "\nmemory at context {}: weights {:.1f} MB, K/V in fp16 {:.1f} MB ({:.1f} KB a token, backed as "
      "it is used)\n",
      plan.context, plan.weight_mb, plan.kv_mb, plan.kv_kb_per_token);
  if (options.metadata) {
    PrintOutput("\nmetadata\n");
    for (const ListedKey& key : listing.metadata)
      PrintOutput("  {} ({}) = {}\n", key.key, key.type, key.value);
  }
  if (options.tensors) {
    PrintOutput("\ntensors\n");
    for (const ListedTensor& t : listing.tensors) {
      PrintOutput("  {:<36} {:<5} [{}]\n", t.name, t.type, fmt::join(t.shape, ", "));
    }
  }
}

Result<int> Run(const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(options.model));
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles files, OpenModel(path));
  DSPARK_ASSIGN_OR_RETURN(const ModelListing listing, ListModel(path));
  uint64_t bytes = 0;
  for (const ListedTensor& tensor : listing.tensors) bytes += tensor.bytes;
  const MemoryPlan plan = Plan(files.config, bytes, options.context);
  if (options.json) {
    PrintOutput("{}\n", ToJson(path, listing, files.config, plan).dump());
  } else {
    Print(path, listing, files.config, plan, options);
  }
  return kExitOk;
}

}  // namespace

Command AddInfo(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  app.add_option("model,-m,--model", options->model,
                 "A GGUF file or a Hugging Face directory [the default model]");
  app.add_option("-c,--ctx", options->context, "Context to plan memory for [the model's own, at most 8192]")
      ->check(CLI::Range(16, 1 << 20));
  app.add_flag("--metadata", options->metadata, "List every metadata key");
  app.add_flag("--tensors", options->tensors, "List every tensor");
  app.add_flag("--json", options->json, "One JSON object, metadata and tensors included");
  return [options] { return Run(*options); };
}

}  // namespace dspark

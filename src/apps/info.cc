// dspark info: what a model file is, and what running it takes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/drafter_info.h"
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

nlohmann::json ModelToJson(const ModelConfig& c, const MemoryPlan& plan) {
  return {{"model",
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
}

// `json` with what every file has.
nlohmann::json WithFile(nlohmann::json json, const std::string& path, const ModelListing& listing) {
  json["path"] = path;
  json["format"] = listing.format;
  json["file_bytes"] = listing.file_bytes;
  for (const ListedKey& key : listing.metadata) {
    json["metadata"].push_back({{"key", key.key}, {"type", key.type}, {"value", key.value}});
  }
  for (const ListedTensor& tensor : listing.tensors) {
    json["tensors"].push_back(
        {{"name", tensor.name}, {"type", tensor.type}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  }
  return json;
}

void PrintFile(const std::string& path, const ModelListing& listing) {
  fmt::print("{}\n{}, {:.1f} MB, {} tensors", path, listing.format, double(listing.file_bytes) / 1e6,
             listing.tensors.size());
  for (const auto& [type, total] : TotalsByType(listing)) {
    fmt::print("; {} × {} ({:.1f} MB)", total.tensors, type, double(total.bytes) / 1e6);
  }
  fmt::print("\n\n");
}

void PrintModel(const ModelConfig& c, const MemoryPlan& plan) {
  fmt::print("{}{}{}\n", c.architecture, c.name.empty() ? "" : ": ", c.name);
  fmt::print("  layers {}, width {}, feed-forward {}\n", c.layers, c.d_model, c.d_ffn);
  fmt::print("  query heads {}, KV heads {}, head size {}\n", c.heads, c.kv_heads, c.head_dim);
  fmt::print("  vocabulary {}{}, context {}\n", c.vocab, c.tied_embeddings ? " (tied)" : "", c.max_context);
  fmt::print("  end tokens {}\n", fmt::join(c.eos, ", "));
  fmt::print(
      "\nmemory at context {}: weights {:.1f} MB, K/V in fp16 {:.1f} MB ({:.1f} KB a token, backed as "
      "it is used)\n",
      plan.context, plan.weight_mb, plan.kv_mb, plan.kv_kb_per_token);
}

void PrintLists(const ModelListing& listing, const InfoOptions& options) {
  if (options.metadata) {
    fmt::print("\nmetadata\n");
    for (const ListedKey& key : listing.metadata)
      fmt::print("  {} ({}) = {}\n", key.key, key.type, key.value);
  }
  if (options.tensors) {
    fmt::print("\ntensors\n");
    for (const ListedTensor& t : listing.tensors) {
      fmt::print("  {:<36} {:<5} [{}]\n", t.name, t.type, fmt::join(t.shape, ", "));
    }
  }
}

Result<int> RunOnDrafter(const std::string& path, const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const DrafterFiles drafter, OpenDrafter(path));
  DSPARK_ASSIGN_OR_RETURN(const ModelListing listing, ListModel(path));
  if (options.json) {
    fmt::print("{}\n", WithFile({{"drafter", DrafterToJson(drafter)}}, path, listing).dump());
    return kExitOk;
  }
  PrintFile(path, listing);
  fmt::print("{}", DescribeDrafter(drafter));
  PrintLists(listing, options);
  return kExitOk;
}

Result<int> Run(const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(options.model));
  if (LooksLikeDrafter(path)) return RunOnDrafter(path, options);
  DSPARK_ASSIGN_OR_RETURN(const ModelFiles files, OpenModel(path));
  DSPARK_ASSIGN_OR_RETURN(const ModelListing listing, ListModel(path));
  uint64_t bytes = 0;
  for (const ListedTensor& tensor : listing.tensors) bytes += tensor.bytes;
  const MemoryPlan plan = Plan(files.config, bytes, options.context);
  if (options.json) {
    fmt::print("{}\n", WithFile(ModelToJson(files.config, plan), path, listing).dump());
    return kExitOk;
  }
  PrintFile(path, listing);
  PrintModel(files.config, plan);
  PrintLists(listing, options);
  return kExitOk;
}

}  // namespace

Command AddInfo(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  app.add_option("model,-m,--model", options->model,
                 "A model or a drafter: GGUF file or Hugging Face directory [the default model]");
  app.add_option("-c,--ctx", options->context, "Context to plan memory for [the model's own, at most 8192]")
      ->check(CLI::Range(16, 1 << 20));
  app.add_flag("--metadata", options->metadata, "List every metadata key");
  app.add_flag("--tensors", options->tensors, "List every tensor");
  app.add_flag("--json", options->json, "One JSON object, metadata and tensors included");
  return [options] { return Run(*options); };
}

}  // namespace dspark

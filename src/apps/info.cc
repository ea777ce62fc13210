// dspark info: what a model file is, and what running it takes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "api/memory_plan.h"
#include "api/session.h"
#include "apps/commands.h"
#include "apps/drafter_info.h"
#include "apps/output.h"
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

std::map<std::string, TypeTotal> TotalsByType(const ModelListing& listing) {
  std::map<std::string, TypeTotal> totals;
  for (const ListedTensor& tensor : listing.tensors) {
    ++totals[tensor.type].tensors;
    totals[tensor.type].bytes += tensor.bytes;
  }
  return totals;
}

nlohmann::json ListingJson(const std::string& path, const ModelListing& listing) {
  nlohmann::json json{{"path", path}, {"format", listing.format}, {"file_bytes", listing.file_bytes}};
  for (const ListedKey& key : listing.metadata) {
    json["metadata"].push_back({{"key", key.key}, {"type", key.type}, {"value", key.value}});
  }
  for (const ListedTensor& tensor : listing.tensors) {
    json["tensors"].push_back(
        {{"name", tensor.name}, {"type", tensor.type}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  }
  return json;
}

nlohmann::json ModelJson(const ModelConfig& c) {
  return {{"architecture", c.architecture},
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
          {"eos", c.eos}};
}

nlohmann::json MemoryJson(const MemoryPlan& plan) {
  return {{"context", plan.context},
          {"weight_mb", plan.weights / 1e6},
          {"kv_mb", plan.kv / 1e6},
          {"kv_kb_per_token", plan.kv_per_token / 1e3},
          {"workspace_mb", plan.workspace / 1e6},
          {"total_mb", plan.Total() / 1e6}};
}

void PrintHead(const std::string& path, const ModelListing& listing) {
  PrintOutput("{}\n{}, {:.1f} MB, {} tensors", path, listing.format, double(listing.file_bytes) / 1e6,
              listing.tensors.size());
  for (const auto& [type, total] : TotalsByType(listing)) {
    PrintOutput("; {} × {} ({:.1f} MB)", total.tensors, type, double(total.bytes) / 1e6);
  }
  PrintOutput("\n\n");
}

void PrintModel(const ModelConfig& c, const MemoryPlan& plan) {
  PrintOutput("{}{}{}\n", c.architecture, c.name.empty() ? "" : ": ", c.name);
  PrintOutput("  layers {}, width {}, feed-forward {}\n", c.layers, c.d_model, c.d_ffn);
  PrintOutput("  query heads {}, KV heads {}, head size {}\n", c.heads, c.kv_heads, c.head_dim);
  PrintOutput("  vocabulary {}{}, context {}\n", c.vocab, c.tied_embeddings ? " (tied)" : "", c.max_context);
  PrintOutput("  end tokens {}\n", fmt::join(c.eos, ", "));
  PrintOutput(
      "\nmemory at context {}: {:.1f} MB: weights {:.1f}, K/V in fp16 {:.1f} ({:.1f} KB a token, backed as "
      "it is used), workspace {:.1f}\n",
      plan.context, plan.Total() / 1e6, plan.weights / 1e6, plan.kv / 1e6, plan.kv_per_token / 1e3,
      plan.workspace / 1e6);
}

void PrintMetadata(const ModelListing& listing) {
  PrintOutput("\nmetadata\n");
  for (const ListedKey& key : listing.metadata) PrintOutput("  {} ({}) = {}\n", key.key, key.type, key.value);
}

void PrintTensors(const ModelListing& listing) {
  PrintOutput("\ntensors\n");
  for (const ListedTensor& t : listing.tensors) {
    PrintOutput("  {:<36} {:<5} [{}]\n", t.name, t.type, fmt::join(t.shape, ", "));
  }
}

// A file that can be read and not run: a drafter, an architecture of others, an incomplete model.
void ShowOther(const std::string& path, const ModelListing& listing, const std::string& reason,
               const InfoOptions& options) {
  if (options.json) {
    nlohmann::json json = ListingJson(path, listing);
    json["cannot_run"] = reason;
    return PrintOutput("{}\n", json.dump());
  }
  PrintHead(path, listing);
  for (const ListedKey& key : listing.metadata) {
    if (key.key == "general.architecture") PrintOutput("{}\n", key.value);
  }
  PrintOutput("cannot be run: {}\n", reason);
  if (options.metadata) PrintMetadata(listing);
  PrintTensors(listing);
}

void ShowModel(const std::string& path, const ModelListing& listing, const ModelConfig& config,
               const MemoryPlan& plan, const InfoOptions& options) {
  if (options.json) {
    nlohmann::json json = ListingJson(path, listing);
    json["model"] = ModelJson(config);
    json["memory"] = MemoryJson(plan);
    return PrintOutput("{}\n", json.dump());
  }
  PrintHead(path, listing);
  PrintModel(config, plan);
  if (options.metadata) PrintMetadata(listing);
  if (options.tensors) PrintTensors(listing);
}

Result<int> RunOnTable(const std::string& path, const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const ModelListing listing, ListModel(path));
  const Result<NgramFile> table = NgramFile::Open(path);
  if (!table) {
    ShowOther(path, listing, table.error().text, options);
    return kExitOk;
  }
  if (options.json) {
    nlohmann::json json = ListingJson(path, listing);
    json["drafter"] = TableToJson(*table);
    PrintOutput("{}\n", json.dump());
    return kExitOk;
  }
  PrintHead(path, listing);
  PrintOutput("{}", DescribeTable(*table));
  if (options.metadata) PrintMetadata(listing);
  if (options.tensors) PrintTensors(listing);
  return kExitOk;
}

Result<int> RunOnDrafter(const std::string& path, const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const ModelListing listing, ListModel(path));
  const Result<DrafterFiles> drafter = OpenDrafter(path);
  if (!drafter) {
    ShowOther(path, listing, drafter.error().text, options);
    return kExitOk;
  }
  if (options.json) {
    nlohmann::json json = ListingJson(path, listing);
    json["drafter"] = DrafterToJson(*drafter);
    PrintOutput("{}\n", json.dump());
    return kExitOk;
  }
  PrintHead(path, listing);
  PrintOutput("{}", DescribeDrafter(*drafter));
  if (options.metadata) PrintMetadata(listing);
  if (options.tensors) PrintTensors(listing);
  return kExitOk;
}

Result<int> Run(const InfoOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(const std::string path, ResolveModel(options.model));
  if (LooksLikeNgramFile(path)) return RunOnTable(path, options);
  if (LooksLikeDrafter(path)) return RunOnDrafter(path, options);
  const Result<ModelFiles> files = OpenModel(path);
  const Result<ModelListing> listing = ListModel(path);
  if (!listing) return files ? listing.error() : files.error();
  if (!files) {
    ShowOther(path, *listing, files.error().text, options);
    return kExitOk;
  }
  TargetLimits limits;
  DSPARK_ASSIGN_OR_RETURN(limits.max_context, ChooseContext(files->config, options.context));
  DSPARK_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(*files, limits, 1, UsableCores()));
  ShowModel(path, *listing, files->config, plan, options);
  return kExitOk;
}

}  // namespace

Command AddInfo(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  app.add_option("model,-m,--model", options->model,
                 "A model or a drafter: GGUF or safetensors file, Hugging Face directory, or a model's name "
                 "[the default model]");
  app.add_option("-c,--ctx", options->context, "Context to plan memory for [the model's own, at most 8192]")
      ->check(CLI::Range(16, 1 << 20));
  app.add_flag("--metadata", options->metadata, "List every metadata key");
  app.add_flag("--tensors", options->tensors, "List every tensor");
  app.add_flag("--json", options->json, "One JSON object, metadata and tensors included");
  app.footer(
      "\nExamples:\n"
      "  dspark info\n"
      "  dspark info drafter.gguf --metadata");
  return [options] { return Run(*options); };
}

}  // namespace dspark
